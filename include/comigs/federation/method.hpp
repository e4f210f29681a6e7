// The table of methods: what each one shares, how it weighs experts, how routers are trained. A method is a
// row, not code.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/federation/rule.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::federation {

/// Which of a user's experts are generalists, that is, shared with the users who hold them too.
enum class Sharing {
  none,
  first,   ///< expert 0
  chosen,  ///< the first experts, one for each of [user] generalists
  all,
};

/// The data that routers trained in steps of their own see.
enum class RouterData { training, validation };

struct Method {
  const char* name;
  std::optional<std::int64_t> experts;  ///< in every MLP block of every user; empty: by user ([user] experts)
  adapter::Gate gate;
  Sharing experts_shared;
  bool attention_shared;  ///< attention LoRA shared by all users
  adapter::Factors trained, shared;
  const Rule& rule;
  train::RouterTraining router_training;
  RouterData router_data;
  const char* paper;  ///< where the CoMiGS paper has it
  const char* summary;
  const adapter::AdapterKind& adapter = adapter::kinds::lora;
  bool routers_shared = false;  ///< by all users
};

/// Whether a gate by sequence learns first to tell categories, or clusters, of examples apart.
[[nodiscard]] bool warms_up(const Method& method, const config::Method& options);

/// All methods, in the paper's order.
[[nodiscard]] std::span<const Method> methods();
/// Throws ConfigError naming the known methods, the nearest first.
[[nodiscard]] const Method& find_method(const std::string& name);

/// The trainable part that the method gives each user.
[[nodiscard]] std::vector<adapter::UserModel> user_models(const Method& method,
                                                          const std::vector<config::User>& users);

/// Throws ConfigError, with the reason, if the configuration does not go with the method: a number of experts
/// that it fixes otherwise, ranks that differ where factors are averaged, an option without effect, a top_k
/// that no user has the experts for.
void check_method(const Method& method, const config::Config& config);

/// Which users of a `check_method`ed configuration have fewer experts than the top_k that they were given, as
/// a line for the log; empty: none.
[[nodiscard]] std::string limits_of_top_k(const Method& method, const std::vector<config::User>& users);

}  // namespace comigs::federation
