// The table of methods: what each one shares, how it weighs experts, how routers are trained. A method is a
// row, not code.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comigs/config/config.hpp"
#include "comigs/model/parameters.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::federation {

/// Which of a user's experts are generalists, that is, averaged over the users who hold them.
enum class Sharing { none, first, all };

struct Method {
  const char* name;
  std::optional<std::int64_t> experts;  ///< in every MLP block of every user; empty: by user ([user] experts)
  model::Gate gate;
  Sharing experts_shared;
  bool attention_shared;  ///< attention LoRA averaged over all users
  train::RouterTraining router_training;
  train::RouterData router_data;
  const char* paper;  ///< where the CoMiGS paper has it
  const char* summary;
};

/// All methods, in the paper's order.
[[nodiscard]] std::span<const Method> methods();
/// Throws ConfigError naming the known methods, the nearest first.
[[nodiscard]] const Method& find_method(const std::string& name);

/// The trainable part that the method gives each user. Throws ConfigError if a user's settings do not go with
/// the method: a number of experts that it fixes otherwise, or LoRA ranks that differ where factors are
/// averaged.
[[nodiscard]] std::vector<model::UserModel> user_models(const Method& method,
                                                        const std::vector<config::User>& users);

}  // namespace comigs::federation
