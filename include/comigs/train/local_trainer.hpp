// What a user does between two aggregations: optimiser steps of the experts, and now and then of the routers
// (Algorithm 1).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "comigs/config/config.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/train/adamw.hpp"
#include "comigs/train/schedule.hpp"

namespace comigs::train {

/// When routers are trained.
enum class RouterTraining {
  none,         ///< there are none, or they stay as drawn
  joint,        ///< with the experts, on the same loss and batch
  alternating,  ///< in steps of their own, after every tau expert steps
};

/// The data that alternating router steps see.
enum class RouterData { training, validation };

/// How a user trains, as its method and configuration have it.
struct LocalPlan {
  RouterTraining router_training = RouterTraining::alternating;
  RouterData router_data = RouterData::validation;
  config::Method method;
  config::Optimiser optimiser;
  config::User user;
  std::uint64_t seed = 0;
  std::int64_t rounds = 0;
  std::uint32_t user_index = 0;
};

/// The two phases' losses of one step, as float32 scalars on the model's device: nothing waits for them.
struct StepLosses {
  at::Tensor language_model, load_balancing;  ///< the latter undefined where nothing is routed
};

/// Which phase a step belonged to, for observers.
enum class Phase { experts, routers };

struct RoundSeconds {
  double experts = 0.0, routers = 0.0;
};

/// Trains a user's parameters in place. Local: never communicates. A phase computes no gradient of the other
/// phase's parameters. With micro-batches the load-balancing loss is the mean of theirs, not that of the
/// whole batch: f and P are no linear functions.
class LocalTrainer {
 public:
  /// Keeps references: `base`, `parameters` and `shards` must live longer.
  LocalTrainer(const model::BaseModel& base, model::Parameters& parameters, const data::UserData& shards,
               const LocalPlan& plan);

  /// Called after the backward pass of each step and before the optimiser's, with the gradients in place.
  using Observer = std::function<void(Phase, const data::Batch&, const StepLosses&)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  /// The local steps of `round` (from 1). The result depends on the parameters, the optimiser's state, the
  /// plan and the round. Throws NumericError if a loss or gradient of the round or a parameter after it is
  /// not finite.
  RoundSeconds train_round(std::int64_t round);

  /// Optimiser steps of both phases in a round, for progress bars.
  [[nodiscard]] std::int64_t steps_in_round(std::int64_t round) const;

 private:
  void expert_step(std::int64_t round, std::int64_t step, std::int64_t iteration);
  void router_steps(std::int64_t round, std::int64_t iteration);
  StepLosses accumulate_gradients(const data::Batch& batch);
  [[nodiscard]] bool routers_due(std::int64_t iteration) const;
  void check_finite(std::int64_t round);

  const model::BaseModel& base_;
  model::Parameters& parameters_;
  const data::UserData& shards_;
  LocalPlan plan_;
  CosineSchedule schedule_;
  Adamw optimiser_;
  at::Tensor loss_sum_;
  std::int64_t router_steps_done_ = 0;
  Observer observer_;
};

}  // namespace comigs::train
