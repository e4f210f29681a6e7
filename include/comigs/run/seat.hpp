// A place on a rank at which one user is served: its tensors, its training, its evaluation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/peft_adapter.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/job/job.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/results/checkpoint.hpp"
#include "comigs/train/evaluation.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::run {

/// What a user takes along from one seat to another, or into a checkpoint.
struct UserState {
  results::UserStanding standing;
  std::vector<std::pair<std::string, at::Tensor>>
      blocks;  ///< float32 [P] in host memory, as trainers name them
};

/// What a seat is made from. References must live longer.
struct SeatSetup {
  const config::Config& config;  ///< with micro-batches as they fit the user's memory
  const federation::Method& method;
  const adapter::UserModel& user_model;
  const model::BaseModel& base;
  c10::Device device;
  std::size_t user;
  data::UserData data;
  train::Texts texts;
  std::int64_t categories = 0;  ///< of the data set's examples; 0: plain text
  /// What the user begins as; none: as drawn.
  std::optional<adapter::PeftAdapter> init_adapter = std::nullopt;
};

/// Collective. What user `user` of a job is served with, its data open. Throws PeerError on every rank if any
/// cannot read it.
[[nodiscard]] SeatSetup all_open_user(const comm::Communicator& world, const job::Job& job,
                                      const config::Config& config, const model::BaseModel& base,
                                      const c10::Device& device, std::size_t user);

/// Owns what one user trains, and where it stands in its run: at first as drawn, or as the adapter, in round
/// 0. All of it is local, unless the trainer exchanges gradients.
class Seat {
 public:
  explicit Seat(SeatSetup setup);
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  [[nodiscard]] std::size_t user() const { return setup_.user; }
  [[nodiscard]] const config::User& options() const { return setup_.config.users[setup_.user]; }
  [[nodiscard]] const data::UserData& data() const { return setup_.data; }
  [[nodiscard]] adapter::Parameters& parameters() { return parameters_; }
  [[nodiscard]] const adapter::Parameters& parameters() const { return parameters_; }
  [[nodiscard]] train::LocalTrainer& trainer() { return trainer_; }
  [[nodiscard]] const train::LocalTrainer& trainer() const { return trainer_; }

  /// Where the user stands; the record is of the round under way.
  [[nodiscard]] results::RoundProgress& progress() { return progress_; }
  [[nodiscard]] const results::RoundProgress& progress() const { return progress_; }
  /// Its record of round 0, once that is over.
  [[nodiscard]] const results::UserRound& start() const { return start_; }
  void keep_start() { start_ = progress_.record; }

  /// What the user leaves with; what a rule keeps for it, the ranks that it left among it, and whether
  /// it takes part are for others to add. On the CPU the blocks are the seat's own, which its next step
  /// changes.
  [[nodiscard]] UserState give() const;
  /// Goes on as the seat of the same user that gave this would have.
  void take(const UserState& state);

  /// Trains the round from where progress stands, which it moves on, times included. Returns whether the
  /// round's steps are all done. Throws what LocalTrainer throws.
  bool train();
  /// Evaluates the splits, training text where that is asked for, into the round's record. Throws Interrupted
  /// where `stop`, asked before each batch, says so; DataError, NumericError where the test loss is not
  /// finite.
  void evaluate(const std::function<bool()>& stop);
  /// What its gate by sequence reads of each example that expert steps learn from, [n, C] float32 in host
  /// memory. Throws Interrupted as `evaluate` does.
  [[nodiscard]] at::Tensor gate_features(const std::function<bool()>& stop) const;
  /// Of the validation and the test split, as the model is now.
  [[nodiscard]] results::SplitEvaluations perplexities(const std::function<bool()>& stop) const;

 private:
  /// Of the split's leading `tokens` (0: all).
  [[nodiscard]] train::SplitReport evaluated(const data::TokenShard& shard, const std::function<bool()>& stop,
                                             std::int64_t tokens = 0) const;
  [[nodiscard]] RoutingStatistics with_single_expert(RoutingStatistics routed) const;
  void record_categories(const train::SplitReport& test, const train::SplitReport& validation);
  void record_prompts();

  SeatSetup setup_;
  adapter::Parameters parameters_;
  at::Tensor drawn_prompts_;  // [E, m C], as they began; undefined: the user has none
  train::LocalTrainer trainer_;
  mutable train::EvaluationPasses passes_;  // of no consequence to what evaluations give
  results::RoundProgress progress_;
  results::UserRound start_;
};

}  // namespace comigs::run
