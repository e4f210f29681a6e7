#include "comigs/federation/method.hpp"

#include "comigs/base/error.hpp"
#include "comigs/config/nearest.hpp"

namespace comigs::federation {

namespace {

using train::RouterTraining;
using enum train::RouterData;

constexpr auto by_user = std::nullopt;
constexpr auto unrouted = RouterTraining::none;
constexpr auto joint = RouterTraining::joint;
constexpr auto in_turn = RouterTraining::alternating;
constexpr auto equal = model::Gate::equal;
constexpr auto top_k = model::Gate::top_k;

// clang-format off
constexpr Method table[] = {
    // name, experts, gate, experts shared, attention shared, router training, router data, paper, summary
    {"pretrained", 0, model::Gate::none, Sharing::none, false, unrouted, validation, "T1, T4 i",
     "the base model as it is; nothing is trained"},
    {"local", by_user, equal, Sharing::none, false, unrouted, validation, "T1, T4 i",
     "every user alone, attention LoRA too"},
    {"fedavg", by_user, equal, Sharing::all, true, unrouted, validation, "T1, T4 i",
     "every LoRA averaged (McMahan et al. 2017)"},
    {"local-moe", by_user, top_k, Sharing::none, true, joint, training, "T4 ii",
     "own experts, routers trained with them"},
    {"fedavg-moe", by_user, top_k, Sharing::all, true, joint, training, "T4 ii",
     "averaged experts, routers trained with them"},
    {"pfedmoe", by_user, top_k, Sharing::first, true, joint, training, "related work",
     "one generalist, routers trained with the experts (Yi et al. 2024)"},
    {"local-moe-tr", by_user, top_k, Sharing::none, true, in_turn, training, "T4 iii",
     "own experts, routers in turn"},
    {"fedavg-moe-tr", by_user, top_k, Sharing::all, true, in_turn, training, "T4 iii",
     "averaged experts, routers in turn"},
    {"comigs-1g1s-tr", 2, top_k, Sharing::first, true, in_turn, training, "T4 iii",
     "a generalist and a specialist, routers in turn"},
    {"comigs-2s", 2, top_k, Sharing::none, true, in_turn, validation, "T1, T4 iv",
     "two specialists"},
    {"comigs-2g", 2, top_k, Sharing::all, true, in_turn, validation, "T1, T4 iv",
     "two generalists"},
    {"comigs-1g1s", 2, top_k, Sharing::first, true, in_turn, validation, "T1, T4 iv",
     "a generalist and a specialist"},
    {"comigs-1gxs", by_user, top_k, Sharing::first, true, in_turn, validation, "T2, F6-F12",
     "a generalist and as many specialists as a user can afford"},
};
// clang-format on

std::int64_t generalists(const Method& method, std::int64_t experts) {
  switch (method.experts_shared) {
    case Sharing::none:
      return 0;
    case Sharing::first:
      return std::min<std::int64_t>(1, experts);
    case Sharing::all:
      return experts;
  }
  return 0;
}

void check_experts(const Method& method, const std::vector<config::User>& users) {
  for (std::size_t i = 0; i < users.size(); ++i)
    if (method.experts.value_or(0) > 0 && users[i].experts != *method.experts)
      throw ConfigError(
          fmt::format("method '{}' has {} experts for every user, but [user.{}] experts = {}; 'comigs-1gxs' "
                      "takes any number",
                      method.name, *method.experts, i, users[i].experts));
}

// Averages are taken factor by factor: what is averaged must have one shape and mean the same update.
void check_ranks(const Method& method, const std::vector<model::UserModel>& models) {
  if (!method.attention_shared && method.experts_shared == Sharing::none) return;
  for (std::size_t i = 1; i < models.size(); ++i)
    if (models[i].lora_rank != models[0].lora_rank || models[i].lora_alpha != models[0].lora_alpha)
      throw ConfigError(
          fmt::format("method '{}' averages LoRA factors, so all users need one rank and alpha: user 0 has "
                      "lora_rank = {}, "
                      "lora_alpha = {}, user {} has {}, {}",
                      method.name, models[0].lora_rank, models[0].lora_alpha, i, models[i].lora_rank,
                      models[i].lora_alpha));
}

}  // namespace

std::span<const Method> methods() { return table; }

const Method& find_method(const std::string& name) {
  std::vector<std::string_view> names;
  for (const Method& method : table) {
    if (name == method.name) return method;
    names.emplace_back(method.name);
  }
  const auto meant = config::nearest(name, names);
  throw ConfigError(fmt::format("unknown method '{}'{}; known: {}", name,
                                meant ? fmt::format("; did you mean '{}'?", names[*meant]) : "",
                                fmt::join(names, ", ")));
}

std::vector<model::UserModel> user_models(const Method& method, const std::vector<config::User>& users) {
  check_experts(method, users);
  std::vector<model::UserModel> models;
  for (const config::User& user : users) {
    const std::int64_t experts = method.experts.value_or(user.experts);
    models.push_back({.experts = experts,
                      .generalists = generalists(method, experts),
                      .lora_rank = user.lora_rank,
                      .lora_alpha = user.lora_alpha,
                      .top_k = method.gate == model::Gate::top_k ? std::min(user.top_k, experts) : experts,
                      .gate = method.gate,
                      .shared_attention = method.attention_shared});
  }
  check_ranks(method, models);
  return models;
}

}  // namespace comigs::federation
