// What a user does between two aggregations: optimiser steps of the experts, and now and then of the routers
// (Algorithm 1).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/data/token_shard.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/recording.hpp"
#include "comigs/train/adamw.hpp"
#include "comigs/train/schedule.hpp"

namespace comigs::train {

/// When routers are trained.
enum class RouterTraining {
  none,         ///< there are none, or they stay as drawn
  joint,        ///< with the experts, on the same loss and batch
  alternating,  ///< in steps of their own, after every tau expert steps
};

/// The texts that the two kinds of steps draw their batches from.
struct Texts {
  std::vector<data::TokenShard> experts, routers;
};

/// How a user trains, as its method and configuration have it.
struct LocalPlan {
  RouterTraining router_training = RouterTraining::alternating;
  data::Share batch;  ///< this process's part of an expert step's batch: `batch_sequences` of it
  config::Method method;
  config::Optimiser optimiser;
  config::User user;
  std::uint64_t seed = 0;
  std::int64_t rounds = 0;
  std::int64_t gate_warmup_rounds = 0;  ///< first rounds, in which a gate by sequence alone is trained
  std::uint32_t user_index = 0;
};

/// The losses of one step or of a part of it, as float32 scalars on the model's device: nothing waits for
/// them. Where several processes make a batch together, the mean of theirs is the batch's.
struct StepLosses {
  at::Tensor language_model, load_balancing;  ///< the latter undefined where nothing is routed
};

/// Which phase a step belonged to, for observers. Warm-up: of a gate by sequence, to tell the categories of
/// examples apart, or other groups that take their place in the batch.
enum class Phase { experts, routers, warmup };

/// What an aggregation rule has local training do beside its own loss; both may be empty.
struct Regulariser {
  struct Term {
    double weight = 0.0;
    at::Tensor value;  ///< float32 scalar, differentiable in the parameters; undefined: there is none
  };
  /// Asked for at each step: weight x value is added to the loss.
  std::function<Term()> term;
  /// Called after the optimiser's step of each expert step.
  std::function<void()> after_step;
  /// Terms of one version compute the same on the same tensors, so that what was recorded of them serves on.
  std::int64_t version = 0;
};

/// What came of a call of `train_round`.
struct LocalRound {
  std::int64_t steps = 0;                               ///< expert steps of the round that are done now
  double experts_seconds = 0.0, routers_seconds = 0.0;  ///< that the call took
  /// Of the expert steps of the call, on this process's part of their batches, each before its update.
  Evaluation experts = {};
};

/// Trains a user's parameters in place. Local, unless gradients are exchanged. A phase computes no gradient
/// of the other phase's parameters, unless `carry_phase_gradients` asks for what the published code does:
/// each optimiser clears its own gradients after its own step only, so that those of the router steps enter
/// the next expert step and those of the expert steps the next router step. The loss is the mean over all
/// predicted tokens of the batch, also where micro-batches, or the parts of several processes, have unlike
/// numbers of them. With micro-batches the load-balancing loss is the mean of theirs, not that of the whole
/// batch: f and P are no linear functions.
class LocalTrainer {
 public:
  /// Keeps references: `base` and `parameters` must live longer.
  LocalTrainer(const model::BaseModel& base, adapter::Parameters& parameters, Texts texts, LocalPlan plan);
  LocalTrainer(const LocalTrainer&) = delete;
  LocalTrainer& operator=(const LocalTrainer&) = delete;
  ~LocalTrainer();

  /// Called after the backward pass of each step and before the optimiser's, with the gradients in place.
  using Observer = std::function<void(Phase, const data::Batch&, const StepLosses&)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  /// Called on the gradients of each slice that an expert step trains, between the backward pass and the
  /// optimiser's step, to replace them by those of a larger batch (`centralized`).
  using Exchange = std::function<void(const at::Tensor& gradients)>;
  void exchange_gradients(Exchange exchange) { exchange_ = std::move(exchange); }
  /// Whether `train_round` communicates.
  [[nodiscard]] bool exchanges() const { return static_cast<bool>(exchange_); }

  /// Of the steps from now on; what it refers to must live as long as it is asked.
  void regularise(Regulariser regulariser);

  /// Asked before each expert step whether the round is left there, to be gone on with later.
  using Stop = std::function<bool()>;
  void stop_when(Stop stop) { stop_ = std::move(stop); }

  /// What the warm-up's steps take for the categories of examples: [example of the experts' texts].
  void warm_up_to(std::vector<std::int64_t> groups) { warmup_groups_ = std::move(groups); }

  /// The local steps of `round` (from 1) from expert step `first_step` on; each router update belongs to the
  /// expert step before it. The result depends on the parameters, the state, the plan and the steps' numbers.
  /// Throws NumericError if a loss or gradient or a parameter afterwards is not finite; on the CPU right
  /// after the step, unless gradients are exchanged.
  LocalRound train_round(std::int64_t round, std::int64_t first_step = 0);

  /// What steps depend on beside plan and step numbers, [P] each: "values", both moments, and "gradients"
  /// where they are carried from phase to phase. Whoever sets them back goes on as from there.
  [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> state() const;

  [[nodiscard]] const LocalPlan& plan() const { return plan_; }
  /// For others who record passes of the same parameters, between steps.
  [[nodiscard]] model::RecordingMemory& recording_memory() { return recording_memory_; }
  /// Optimiser steps of both phases in a round, for progress bars.
  [[nodiscard]] std::int64_t steps_in_round(std::int64_t round) const;

 private:
  void expert_step(std::int64_t round, std::int64_t step, std::int64_t iteration);
  void warmup_step(std::int64_t round, std::int64_t step, std::int64_t iteration);
  /// Of an expert step; ranks that make one together draw it together.
  [[nodiscard]] data::Batch batch_of(const StreamKey& key) const;
  [[nodiscard]] StreamKey key_of(std::int64_t round, std::int64_t step) const;
  void router_steps(std::int64_t round, std::int64_t iteration);
  /// `batch` is one of `parts` that processes make of a batch in which `predicted` tokens are targets.
  StepLosses accumulate_gradients(Phase phase, const data::Batch& batch, std::int64_t predicted,
                                  std::int64_t parts = 1);
  struct MicroBatch;
  MicroBatch& micro_batch(Phase phase, std::int64_t sequences);
  /// Adds the gradients of a micro-batch, `share` of the batch's sequences, to the block.
  StepLosses backward(const MicroBatch& part, double share);
  StepLosses warmup_backward(const MicroBatch& part, double share);
  /// The gradients of these parts become zero.
  void clear(const std::vector<adapter::Slice>& parts);
  [[nodiscard]] bool routers_due(std::int64_t iteration) const;
  void check_finite(std::int64_t round);
  [[noreturn]] void fail(std::int64_t round) const;

  const model::BaseModel& base_;
  adapter::Parameters& parameters_;
  Texts texts_;
  LocalPlan plan_;
  adapter::Slice routers_;
  std::vector<adapter::Slice> trained_;      // by expert steps
  std::vector<std::int64_t> warmup_groups_;  // empty: categories
  CosineSchedule schedule_;
  Adamw optimiser_;
  at::Tensor loss_sum_;
  at::Tensor nats_;          // of the expert steps' own tokens, summed; float64
  std::int64_t tokens_ = 0;  // that they predicted
  /// A phase computes the same on the same tensors for all micro-batches of a size, as long as the
  /// regulariser does.
  model::RecordingMemory recording_memory_;
  std::map<std::pair<Phase, std::int64_t>, std::unique_ptr<MicroBatch>> micro_batches_;
  Regulariser regulariser_;
  Observer observer_;
  Stop stop_;
  Exchange exchange_;
};

}  // namespace comigs::train
