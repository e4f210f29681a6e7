#include "comigs/federation/method.hpp"

#include <algorithm>

#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/config/nearest.hpp"
#include "comigs/config/value.hpp"

namespace comigs::federation {

namespace {

using rules::collaboration;
using rules::decomposition;
using rules::fusion;
using rules::gradients;
using rules::mean;
using rules::padding;
using train::RouterTraining;
using enum RouterData;

constexpr auto by_user = std::nullopt;
constexpr auto unrouted = RouterTraining::none;
constexpr auto joint = RouterTraining::joint;
constexpr auto in_turn = RouterTraining::alternating;
constexpr auto equal = adapter::Gate::equal;
constexpr auto top_k = adapter::Gate::top_k;
constexpr auto sequence = adapter::Gate::sequence;
constexpr bool with_routers = true;
constexpr const adapter::AdapterKind& prompts = adapter::kinds::prompts;
constexpr auto A = adapter::Factors::A;
constexpr auto B = adapter::Factors::B;
constexpr auto AB = adapter::Factors::both;

// clang-format off
constexpr Method table[] = {
    // name, experts, gate, experts shared, attention shared, factors trained, factors shared, rule, router training, router data, paper, summary
    {"pretrained", 0, adapter::Gate::none, Sharing::none, false, AB, AB, mean, unrouted, validation, "T1, T4 i",
     "the base model as it is; nothing is trained"},
    {"centralized", by_user, equal, Sharing::all, true, AB, AB, gradients, unrouted, validation, "T1, T4 i",
     "one model on the union of all users' data, at the sum of their batches"},
    {"local", by_user, equal, Sharing::none, false, AB, AB, mean, unrouted, validation, "T1, T4 i",
     "every user alone, attention LoRA too"},
    {"fedavg", by_user, equal, Sharing::all, true, AB, AB, mean, unrouted, validation, "T1, T4 i",
     "every LoRA averaged (McMahan et al. 2017)"},
    {"ffa-lora", by_user, equal, Sharing::all, true, B, B, mean, unrouted, validation, "T4 i",
     "A stays as drawn, alike for all; B trained and averaged (Sun et al. 2024)"},
    {"fedsa-lora", by_user, equal, Sharing::all, true, AB, A, mean, unrouted, validation, "-",
     "A averaged, B the user's own (Guo et al. 2025)"},
    {"pcl", by_user, equal, Sharing::all, true, AB, AB, collaboration, unrouted, validation, "T1, T4 i",
     "every LoRA mixed by user-specific weights from validation losses (Wagner et al. 2024)"},
    {"fdlora", by_user, equal, Sharing::all, true, AB, AB, fusion, unrouted, validation, "-",
     "every LoRA averaged; after the last round fused with the user's own by two weights (Qi et al. 2024)"},
    {"local-moe", by_user, top_k, Sharing::none, true, AB, AB, mean, joint, training, "T4 ii",
     "own experts, routers trained with them"},
    {"fedavg-moe", by_user, top_k, Sharing::all, true, AB, AB, mean, joint, training, "T4 ii",
     "averaged experts, routers trained with them"},
    {"pfedmoe", by_user, top_k, Sharing::first, true, AB, AB, mean, joint, training, "related work",
     "one generalist, routers trained with the experts (Yi et al. 2024)"},
    {"local-moe-tr", by_user, top_k, Sharing::none, true, AB, AB, mean, in_turn, training, "T4 iii",
     "own experts, routers in turn"},
    {"fedavg-moe-tr", by_user, top_k, Sharing::all, true, AB, AB, mean, in_turn, training, "T4 iii",
     "averaged experts, routers in turn"},
    {"comigs-1g1s-tr", 2, top_k, Sharing::first, true, AB, AB, mean, in_turn, training, "T4 iii",
     "a generalist and a specialist, routers in turn"},
    {"comigs-2s", 2, top_k, Sharing::none, true, AB, AB, mean, in_turn, validation, "T1, T4 iv",
     "two specialists"},
    {"comigs-2g", 2, top_k, Sharing::all, true, AB, AB, mean, in_turn, validation, "T1, T4 iv",
     "two generalists"},
    {"comigs-1g1s", 2, top_k, Sharing::first, true, AB, AB, mean, in_turn, validation, "T1, T4 iv",
     "a generalist and a specialist"},
    {"comigs-1gxs", by_user, top_k, Sharing::first, true, AB, AB, mean, in_turn, validation, "T2, F6-F12",
     "a generalist and as many specialists as a user can afford"},
    {"comigs-mgxs", by_user, top_k, Sharing::chosen, true, AB, AB, mean, in_turn, validation, "-",
     "several generalists, of which each user holds some ([user] generalists), and specialists"},
    {"hetlora", 1, equal, Sharing::all, true, AB, AB, padding, unrouted, validation, "T2",
     "ranks by user: padded with zeros, averaged by norm, truncated; ranks prune themselves (Cho et al. 2023)"},
    {"flexlora", 1, equal, Sharing::all, true, AB, AB, decomposition, unrouted, validation, "T2",
     "ranks by user: averaged updates, decomposed by SVD (Bai et al. 2024)"},
    {"prompt-local", 1, equal, Sharing::none, false, AB, AB, mean, unrouted, validation, "-",
     "a group of soft prompts, every user alone (Lester et al. 2021)", prompts},
    {"fedprompt", 1, equal, Sharing::all, true, AB, AB, mean, unrouted, validation, "-",
     "a group of soft prompts, averaged (Zhao et al. 2023)", prompts},
    {"prompt-centralized", 1, equal, Sharing::all, true, AB, AB, gradients, unrouted, validation, "-",
     "a group of soft prompts on the union of all users' data (Xu et al. 2023)", prompts},
    {"mop-centralized", by_user, sequence, Sharing::all, true, AB, AB, gradients, joint, training, "-",
     "groups of soft prompts and a gate by sequence on the union of all users' data", prompts, with_routers},
    {"mop", by_user, sequence, Sharing::all, true, AB, AB, mean, joint, training, "-",
     "groups of soft prompts and a gate by sequence, averaged (Dun et al. 2023)", prompts, with_routers},
    {"mop-local", by_user, sequence, Sharing::none, false, AB, AB, mean, joint, training, "-",
     "groups of soft prompts and a gate by sequence, every user alone", prompts},
    {"mop-equal", by_user, equal, Sharing::all, true, AB, AB, mean, unrouted, validation, "-",
     "groups of soft prompts without a gate, averaged", prompts},
    {"mop-own-gate", by_user, sequence, Sharing::all, true, AB, AB, mean, joint, training, "-",
     "groups of soft prompts, averaged, and every user's own gate", prompts},
    {"mop-1g1s", 2, sequence, Sharing::first, true, AB, AB, mean, in_turn, validation, "-",
     "a generalist and a specialist group of soft prompts, every user's own gate in turn", prompts},
    {"mop-1gxs", by_user, sequence, Sharing::first, true, AB, AB, mean, in_turn, validation, "-",
     "a generalist group of soft prompts and as many of a user's own as it likes, own gates in turn", prompts},
    {"mop-mgxs", by_user, sequence, Sharing::chosen, true, AB, AB, mean, in_turn, validation, "-",
     "several generalist groups ([user] generalists) and own ones, own gates in turn", prompts},
};
// clang-format on

std::vector<std::int64_t> generalists(const Method& method, const config::User& user, std::int64_t experts) {
  std::vector<std::int64_t> all;
  switch (method.experts_shared) {
    case Sharing::none:
      break;
    case Sharing::first:
      if (experts > 0) all.push_back(0);
      break;
    case Sharing::chosen:
      return user.generalists;
    case Sharing::all:
      for (std::int64_t e = 0; e < experts; ++e) all.push_back(e);
      break;
  }
  return all;
}

// Throws what `complaint` says of the first user that it says something of.
template <class Complaint>
void refuse_users(const std::vector<config::User>& users, const Complaint& complaint) {
  for (std::size_t i = 0; i < users.size(); ++i)
    if (const std::string reason = complaint(users[i]); !reason.empty())
      throw ConfigError(fmt::format("[user.{}] {}", i, reason));
}

bool trains_prompts(const Method& method) { return &method.adapter == &prompts; }
bool trains_lora(const Method& method) { return &method.adapter == &adapter::kinds::lora; }

// Whether somebody chose the value; one that differs from the default was chosen by somebody, too.
bool is_said(const config::User& user, std::string_view name, std::int64_t config::User::*option) {
  return user.said.contains(name) || user.*option != config::User().*option;
}

void check_experts(const Method& method, const std::vector<config::User>& users) {
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (method.experts.value_or(0) > 0 && user.experts != *method.experts &&
        is_said(user, "experts", &config::User::experts))
      return fmt::format("experts = {}: method '{}' has {} for every user; '{}' takes any number",
                         user.experts, method.name, *method.experts,
                         !trains_prompts(method)               ? "comigs-1gxs"
                         : method.gate == adapter::Gate::equal ? "mop-equal"
                                                               : "mop-1gxs");
    const bool chooses = method.experts_shared == Sharing::chosen;
    if (!chooses && user.generalists != config::User().generalists)
      return fmt::format("generalists = {}: method '{}' leaves no choice of generalists; '{}' does",
                         fmt::join(user.generalists, "+"), method.name,
                         trains_prompts(method) ? "mop-mgxs" : "comigs-mgxs");
    if (chooses && user.experts < static_cast<std::int64_t>(user.generalists.size()))
      return fmt::format("generalists = {}: {} generalists, but experts = {}",
                         fmt::join(user.generalists, "+"), user.generalists.size(), user.experts);
    return {};
  });
}

bool sends_to_more_than_it_has(const Method& method, const config::User& user) {
  return method.gate == adapter::Gate::top_k && user.top_k > method.experts.value_or(user.experts) &&
         is_said(user, "top_k", &config::User::top_k);
}

// Users of unlike resources may share one top_k; that of a user who has the most experts must be possible.
void check_top_k(const Method& method, const std::vector<config::User>& users) {
  std::int64_t most = method.experts.value_or(0);
  for (const config::User& user : users) most = std::max(most, method.experts.value_or(user.experts));
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (!sends_to_more_than_it_has(method, user) || user.top_k <= most) return {};
    return fmt::format("top_k = {}: no user has more than {} expert{}; expected at most {}", user.top_k, most,
                       most == 1 ? "" : "s", most);
  });
}

bool shares_anything(const Method& method) {
  return method.attention_shared || method.experts_shared != Sharing::none;
}

// What is averaged factor by factor must have one shape and mean the same update.
void check_ranks(const Method& method, const std::vector<config::User>& users) {
  if (!trains_lora(method) || !shares_anything(method) || method.rule.any_rank) return;
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (user.lora_rank == users[0].lora_rank && user.lora_alpha == users[0].lora_alpha) return {};
    return fmt::format(
        "lora_rank = {}, lora_alpha = {}, but user 0 has {}, {}: method '{}' averages LoRA factors, so all "
        "users need the same; 'hetlora' and 'flexlora' take ranks by user",
        user.lora_rank, user.lora_alpha, users[0].lora_rank, users[0].lora_alpha, method.name);
  });
}

// What is averaged prompt by prompt must have one shape and stand in one place.
void check_prompts(const Method& method, const std::vector<config::User>& users) {
  if (!trains_prompts(method) || !shares_anything(method)) return;
  const auto shape = [](const config::User& user) {
    return fmt::format("prompt_tokens = {}, prompt_layer = {}", user.prompt_tokens,
                       config::print(user.prompt_layer));
  };
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (shape(user) == shape(users[0])) return {};
    return fmt::format("{}, but user 0 has {}: method '{}' averages prompts, so all users need the same",
                       shape(user), shape(users[0]), method.name);
  });
}

// A gate that is averaged has one shape and weighs the same groups for all.
void check_shared_gate(const Method& method, const std::vector<config::User>& users) {
  if (!method.routers_shared) return;
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (user.experts == users[0].experts && user.gate_width == users[0].gate_width) return {};
    return fmt::format(
        "experts = {}, gate_width = {}, but user 0 has {}, {}: method '{}' shares the gate, so all users "
        "need the same",
        user.experts, user.gate_width, users[0].experts, users[0].gate_width, method.name);
  });
}

// Attention is averaged factor by factor where it has a rank of its own, by every rule.
void check_attention_ranks(const Method& method, const std::vector<config::User>& users) {
  if (!trains_lora(method) || !shares_anything(method)) return;
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (user.attention_rank > 0 && user.lora_alpha != users[0].lora_alpha)
      return fmt::format(
          "lora_alpha = {}, but user 0 has {}: with an attention_rank, method '{}' averages the "
          "LoRA beside attention factor by factor",
          user.lora_alpha, users[0].lora_alpha, method.name);
    if (user.attention_rank == users[0].attention_rank) return {};
    return fmt::format(
        "attention_rank = {}, but user 0 has {}: method '{}' averages the LoRA beside attention",
        user.attention_rank, users[0].attention_rank, method.name);
  });
}

void check_own_attention(const Method& method, const std::vector<config::User>& users) {
  if (!trains_lora(method) || method.rule.by_slices) return;
  refuse_users(users, [&](const config::User& user) -> std::string {
    if (user.attention_sharing == config::AttentionSharing::method) return {};
    return fmt::format("attention_sharing = own: method '{}' takes every LoRA of all users together",
                       method.name);
  });
}

// One model must have one shape and take its steps together.
void check_one_model(const Method& method, const std::vector<config::User>& users) {
  if (!method.rule.one_shape) return;
  const auto shape = [&](const config::User& user) {
    if (!trains_lora(method)) return fmt::format("experts = {}", user.experts);
    return fmt::format("experts = {}, lora_rank = {}, attention_rank = {}, lora_alpha = {}", user.experts,
                       user.lora_rank, user.attention_rank, user.lora_alpha);
  };
  const auto steps = [&](const config::User& user) {
    return !method.rule.every_step
               ? std::string()
               : fmt::format(
                     ", batch_sequences = {}, context_tokens = {}, local_steps = {}, "
                     "expert_learning_rate = {}",
                     user.batch_sequences, user.context_tokens, user.local_steps, user.expert_learning_rate) +
                     (method.router_training == RouterTraining::none
                          ? std::string()
                          : fmt::format(", router_learning_rate = {}", user.router_learning_rate));
  };
  refuse_users(users, [&](const config::User& user) -> std::string {
    const std::string own = shape(user) + steps(user), first = shape(users[0]) + steps(users[0]);
    if (own == first) return {};
    return fmt::format("{}; user 0 has {}: method '{}' needs them alike for all users", own, first,
                       method.name);
  });
}

void check_communication(const Method& method, const config::Run& run) {
  const bool sums = method.rule.sums_alone && shares_anything(method);
  if (run.communication != config::Precision::float32 && !sums)
    throw ConfigError(fmt::format("[run] communication = bf16: method '{}' {}; expected float32", method.name,
                                  method.rule.sums_alone ? "sends nothing" : "sends more than sums"));
}

void check_failures(const Method& method, const config::Run& run) {
  if (run.on_user_failure == config::OnUserFailure::go_on && method.rule.every_step)
    throw ConfigError(
        fmt::format("[run] on_user_failure = continue: method '{}' trains one model on all users' "
                    "gradients at every step, so that nobody can drop out",
                    method.name));
}

void check_options(const Method& method, const config::Method& options) {
  if (options.carry_phase_gradients && method.router_training != RouterTraining::alternating)
    throw ConfigError(
        fmt::format("[method] carry_phase_gradients = true: method '{}' has no router phase of its own, so "
                    "there is nothing to carry",
                    method.name));
  if (options.averaging != config::Averaging::uniform &&
      (method.rule.own_weights || !shares_anything(method)))
    throw ConfigError(fmt::format("[method] averaging = {}: method '{}' {}", config::print(options.averaging),
                                  method.name,
                                  method.rule.own_weights ? "has weights of its own" : "averages nothing"));
  for (const Method& other : table) {
    const RuleOptions* own = other.rule.options;
    if (own == nullptr || own == method.rule.options || own->text(options).empty()) continue;
    throw ConfigError(fmt::format("[method] {}: method '{}' {}; '{}' does", own->text(options), method.name,
                                  own->lacking, other.name));
  }
}

}  // namespace

std::span<const Method> methods() { return table; }

bool warms_up(const Method& method, const config::Method& options) {
  return method.gate == sequence && method.router_training == RouterTraining::joint &&
         options.gate_warmup_rounds > 0;
}

const Method& find_method(const std::string& name) {
  std::vector<std::string_view> names;
  for (const Method& method : table) {
    if (name == method.name) return method;
    names.emplace_back(method.name);
  }
  const auto meant = config::nearest(name, names);
  throw ConfigError(fmt::format("unknown method '{}'{}; known: {}", printable(name),
                                meant ? fmt::format("; did you mean '{}'?", names[*meant]) : "",
                                fmt::join(names, ", ")));
}

std::vector<adapter::UserModel> user_models(const Method& method, const std::vector<config::User>& users) {
  std::vector<adapter::UserModel> models;
  for (const config::User& user : users) {
    const std::int64_t experts = method.experts.value_or(user.experts);
    models.push_back(
        {.experts = experts,
         .generalists = generalists(method, user, experts),
         .lora_rank = user.lora_rank,
         .attention_rank = user.attention_rank > 0 ? std::optional(user.attention_rank) : std::nullopt,
         .lora_alpha = user.lora_alpha,
         .prompt_tokens = user.prompt_tokens,
         .prompt_layer = user.prompt_layer,
         .gate_width = user.gate_width,
         .top_k = method.gate == adapter::Gate::top_k ? std::min(user.top_k, experts) : experts,
         .gate = method.gate,
         .shared_attention =
             method.attention_shared && user.attention_sharing == config::AttentionSharing::method,
         .shared_routers = method.routers_shared,
         .trained = method.trained,
         .shared = method.shared,
         .kind = &method.adapter});
  }
  return models;
}

std::string limits_of_top_k(const Method& method, const std::vector<config::User>& users) {
  std::vector<std::size_t> limited;
  for (std::size_t i = 0; i < users.size(); ++i)
    if (sends_to_more_than_it_has(method, users[i])) limited.push_back(i);
  if (limited.empty()) return {};
  return fmt::format("top_k: fewer experts than that has user {}: all of them take each of its tokens",
                     fmt::join(limited, ", "));
}

void check_method(const Method& method, const config::Config& config) {
  check_experts(method, config.users);
  check_top_k(method, config.users);
  check_ranks(method, config.users);
  check_prompts(method, config.users);
  check_shared_gate(method, config.users);
  check_attention_ranks(method, config.users);
  check_own_attention(method, config.users);
  check_one_model(method, config.users);
  check_options(method, config.method);
  check_communication(method, config.run);
  check_failures(method, config.run);
}

}  // namespace comigs::federation
