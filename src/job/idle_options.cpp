#include "comigs/job/idle_options.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "comigs/adapter/kind.hpp"
#include "comigs/config/option.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::job {

namespace {

using train::RouterTraining;

// A user's part of a job.
struct Situation {
  const federation::Method& method;
  const config::Config& config;
  const config::User& user;
  const adapter::UserModel& model;
  bool chooses_experts;  ///< experts = auto
};

// Why an option has no effect; empty: it has one.
using Reason = std::string_view (*)(const Situation&);

struct Row {
  std::string_view section, name;
  Reason reason = nullptr;  // null: it is a kind of adapter's alone
};

std::string_view untrained(const Situation& s) {
  return s.method.gate == adapter::Gate::none ? "nothing is trained" : "";
}

// Of an option of [user] that some kind of adapter alone reads.
std::string_view of_other_kind(const Situation& s, std::string_view option) {
  if (const std::string_view reason = untrained(s); !reason.empty()) return reason;
  return adapter::reads(*s.model.kind, option) ? "" : s.model.kind->idle;
}

std::string_view unrouted(const Situation& s) {
  if (s.method.router_training == RouterTraining::none) return "the method has no routers";
  return s.model.routed() ? "" : "a single expert needs no router";
}

std::string_view by_token(const Situation& s) {
  return s.method.gate == adapter::Gate::sequence ? "a gate by sequence is not balanced" : unrouted(s);
}

std::string_view of_sequence_gate(const Situation& s) {
  if (const std::string_view reason = of_other_kind(s, "gate_width"); !reason.empty()) return reason;
  return s.method.gate == adapter::Gate::sequence ? unrouted(s) : "the method has no gate by sequence";
}

std::string_view gate_warmup(const Situation& s) {
  if (const std::string_view reason = of_sequence_gate(s); !reason.empty()) return reason;
  return s.method.router_training == RouterTraining::joint ? "" : "the gate is trained in turn";
}

std::string_view gate_targets(const Situation& s) {
  if (const std::string_view reason = gate_warmup(s); !reason.empty()) return reason;
  return s.config.method.gate_warmup_rounds == 0 ? "gate_warmup_rounds is 0" : "";
}

std::string_view without_router_phase(const Situation& s) {
  if (const std::string_view reason = unrouted(s); !reason.empty()) return reason;
  return s.method.router_training == RouterTraining::alternating ? ""
                                                                 : "routers are trained with the experts";
}

std::string_view router_every(const Situation& s) {
  if (const std::string_view reason = without_router_phase(s); !reason.empty()) return reason;
  return s.config.method.router_steps == 0 ? "router_steps is 0" : "";
}

std::string_view router_rate(const Situation& s) {
  const bool joint = s.method.router_training == RouterTraining::joint;
  return joint ? unrouted(s) : router_every(s);
}

bool favours_a_generalist(const Situation& s) {
  return s.config.method.load_balancing == config::LoadBalancing::generalist &&
         s.model.generalists.size() == 1;
}

// Where expert 0 is to have as many tokens as any other and every expert is in use, the loss is the sum of
// the gate's probabilities, which is 1.
std::string_view unbalanced(const Situation& s) {
  if (const std::string_view reason = by_token(s); !reason.empty()) return reason;
  const bool alike = !favours_a_generalist(s) ||
                     s.config.method.generalist_importance * static_cast<double>(s.model.experts) == 1.0;
  return s.model.top_k == s.model.experts && alike
             ? "where every token goes to every expert, their balance is a constant"
             : "";
}

std::string_view load_balancing(const Situation& s) {
  if (s.config.method.load_balancing == config::LoadBalancing::none) return "";
  if (s.config.method.load_balancing_weight == 0.0) return "load_balancing_weight is 0";
  if (const std::string_view reason = unbalanced(s); !reason.empty()) return reason;
  return s.config.method.load_balancing == config::LoadBalancing::generalist &&
                 s.model.generalists.size() != 1
             ? "without a single generalist to favour, all experts are balanced alike (uniform)"
             : "";
}

std::string_view load_balancing_weight(const Situation& s) {
  return s.config.method.load_balancing == config::LoadBalancing::none ? "load_balancing is none"
                                                                       : unbalanced(s);
}

std::string_view load_balancing_strength(const Situation& s) {
  if (const std::string_view reason = load_balancing_weight(s); !reason.empty()) return reason;
  return s.config.method.load_balancing_weight == 0.0 ? "load_balancing_weight is 0" : "";
}

std::string_view generalist_importance(const Situation& s) {
  if (const std::string_view reason = by_token(s); !reason.empty()) return reason;
  return favours_a_generalist(s) ? load_balancing(s) : "no single generalist is favoured";
}

std::string_view carried(const Situation& s) {
  return s.config.method.carry_phase_gradients ? router_every(s) : "";
}

std::string_view averaging(const Situation& s) {
  if (s.method.rule.own_weights) return "the method has weights of its own";
  return s.method.attention_shared || s.method.experts_shared != federation::Sharing::none
             ? ""
             : "nothing is averaged";
}

std::string_view sums(const Situation& s) {
  const bool none = averaging(s) == "nothing is averaged" || s.method.gate == adapter::Gate::none;
  return none ? "nothing is summed over users" : "";
}

std::string_view activations(const Situation& s) {
  return s.config.run.precision == config::Precision::float32 ? "beside float32 weights all is float32" : "";
}

std::string_view in_any_order(const Situation& s) {
  return s.method.rule.in_users_order ? "the method adds up in users' order anyway" : sums(s);
}

// Of an option that one rule alone reads.
template <const federation::Rule& reader>
std::string_view of_rule(const Situation& s) {
  return reader.options->idle(s.method.rule, s.config.method, s.user);
}

std::string_view pruning(const Situation& s) {
  const std::string_view reason = untrained(s);
  if (reason.empty() && s.model.rank_of_experts() == 0) return s.model.kind->idle;
  return reason.empty() ? of_rule<federation::rules::padding>(s) : reason;
}

std::string_view top_k(const Situation& s) {
  if (s.method.gate == adapter::Gate::sequence) return "a gate by sequence weighs all groups";
  if (s.method.gate == adapter::Gate::equal) return "every expert is active for every token";
  return s.method.gate == adapter::Gate::none ? untrained(s) : unrouted(s);
}

std::string_view attention_sharing(const Situation& s) {
  if (const std::string_view reason = of_other_kind(s, "attention_sharing"); !reason.empty()) return reason;
  return s.method.attention_shared ? "" : "the method shares no attention";
}

std::string_view step_budget(const Situation& s) {
  return s.chooses_experts ? "" : "the number of experts is given";
}

std::string_view chosen_generalists(const Situation& s) {
  return s.method.experts_shared == federation::Sharing::chosen
             ? ""
             : "the method leaves no choice of generalists";
}

constexpr Row rows[] = {
    {"run", "seed", untrained},
    {"run", "rounds", untrained},
    {"run", "evaluate_every", untrained},
    {"run", "weights_every", untrained},
    {"run", "activations", activations},
    {"run", "communication", sums},
    {"run", "reproducible", in_any_order},
    {"run", "checkpoint_every", untrained},
    {"run", "on_user_failure", untrained},
    {"method", "router_every", router_every},
    {"method", "router_steps", without_router_phase},
    {"method", "load_balancing", load_balancing},
    {"method", "load_balancing_weight", load_balancing_weight},
    {"method", "generalist_importance", generalist_importance},
    {"method", "load_balancing_strength", load_balancing_strength},
    {"method", "train_on", untrained},
    {"method", "carry_phase_gradients", carried},
    {"method", "averaging", averaging},
    {"method", "rank_regulariser", pruning},
    {"method", "pruning_strength", pruning},
    {"method", "gate_warmup_rounds", gate_warmup},
    {"method", "gate_targets", gate_targets},
    {"method", "mixing", of_rule<federation::rules::collaboration>},
    {"optimiser", "final_fraction", untrained},
    {"optimiser", "warmup_fraction", untrained},
    {"optimiser", "beta1", untrained},
    {"optimiser", "beta2", untrained},
    {"optimiser", "epsilon", untrained},
    {"optimiser", "weight_decay", untrained},
    {"user", "experts", untrained},
    {"user", "attention_sharing", attention_sharing},
    {"user", "gate_width", of_sequence_gate},
    {"user", "top_k", top_k},
    {"user", "batch_sequences", untrained},
    {"user", "step_budget", step_budget},
    {"user", "local_steps", untrained},
    {"user", "expert_learning_rate", untrained},
    {"user", "router_learning_rate", router_rate},
    {"user", "generalists", chosen_generalists},
};

// With those of options that no row is about, but a kind of adapter alone reads.
std::vector<Row> all_rows() {
  std::vector<Row> all(std::begin(rows), std::end(rows));
  for (const adapter::AdapterKind* kind : adapter::kinds::all)
    for (const std::string_view option : kind->options())
      if (std::ranges::none_of(rows,
                               [&](const Row& row) { return row.section == "user" && row.name == option; }))
        all.push_back({"user", option});
  return all;
}

bool is_of(const config::Setting& setting, std::string_view section, std::string_view name) {
  const config::OptionInfo& option = config::job_table().options[setting.option].info;
  return option.section == section && option.name == name;
}

// The setting of an option that counts for a user; nullptr: it goes by its default.
const config::Setting* given_to(const config::Layered& given, std::string_view section, std::string_view name,
                                std::size_t user) {
  const config::Setting* found = nullptr;
  for (const config::Setting& setting : given.settings) {
    const bool speaks = setting.user == config::all_users || setting.user == static_cast<std::int64_t>(user);
    if (speaks && is_of(setting, section, name)) found = &setting;
  }
  return found;
}

bool chooses_experts(const config::Layered& given, std::size_t user) {
  const config::Setting* experts = given_to(given, "user", "experts", user);
  return experts != nullptr && experts->values.at(experts->values.size() > 1 ? user : 0) == "auto";
}

// Why a setting has no effect for any of the users whom it counts for; empty: it has one, or counts for
// nobody.
std::string_view reason_of(const Row& row, const config::Setting& setting, const config::Layered& given,
                           const std::vector<Situation>& situations) {
  std::string_view reason;
  for (std::size_t user = 0; user < situations.size(); ++user) {
    if (given_to(given, row.section, row.name, user) != &setting) continue;
    reason = row.reason == nullptr ? of_other_kind(situations[user], row.name) : row.reason(situations[user]);
    if (reason.empty()) break;
  }
  return reason;
}

}  // namespace

std::string idle_options(const federation::Method& method, const config::Config& config,
                         const std::vector<adapter::UserModel>& users, const config::Layered& given) {
  std::vector<Situation> situations;
  for (std::size_t user = 0; user < users.size(); ++user)
    situations.push_back({method, config, config.users[user], users[user], chooses_experts(given, user)});
  std::vector<std::pair<std::string_view, std::vector<std::string>>> origins;  // by reason
  for (const Row& row : all_rows())
    for (const config::Setting& setting : given.settings) {
      if (!is_of(setting, row.section, row.name)) continue;
      const std::string_view reason = reason_of(row, setting, given, situations);
      if (reason.empty()) continue;
      auto same = std::ranges::find_if(origins, [&](const auto& entry) { return entry.first == reason; });
      if (same == origins.end()) same = origins.insert(same, {reason, {}});
      same->second.push_back(setting.origin);
    }
  std::string line;
  for (const auto& [reason, options] : origins)
    line += fmt::format("{}{} ({})", line.empty() ? "" : "; ", fmt::join(options, ", "), reason);
  return line.empty() ? line : fmt::format("without effect with method '{}': {}", method.name, line);
}

}  // namespace comigs::job
