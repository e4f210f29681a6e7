// A place on a rank at which one user is served: its tensors, its training, its evaluation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
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

/// What the splits say of a user that it does not train on.
struct HeldOutReports {
  train::SplitReport validation, test;

  [[nodiscard]] results::SplitEvaluations evaluations() const {
    return {.train = {}, .validation = validation.evaluation, .test = test.evaluation};
  }
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
  [[nodiscard]] const c10::Device& device() const { return setup_.device; }
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
  /// Evaluates training text into the round's record, where that is asked for. Throws Interrupted where
  /// `stop`, asked before each batch, says so.
  void evaluate_training(const std::function<bool()>& stop);
  /// Puts what the other splits say into the round's record. Throws DataError, NumericError where the test
  /// loss is not finite.
  void record(const HeldOutReports& found);

  /// As train::evaluation_key, batch_sums and report have them, of the user's model as it is now; `stop` as
  /// above.
  [[nodiscard]] std::string evaluation_key(const data::TokenShard& split) const;
  [[nodiscard]] std::vector<double> batch_sums(const data::TokenShard& split, data::Share share,
                                               const std::function<bool()>& stop) const;
  [[nodiscard]] train::SplitReport report(std::span<const double> sums, std::int64_t processes) const;

  /// What its gate by sequence reads of each example that expert steps learn from, [n, C] float32 in host
  /// memory. Throws Interrupted as above.
  [[nodiscard]] at::Tensor gate_features(const std::function<bool()>& stop) const;

 private:
  [[nodiscard]] train::EvaluationOptions evaluation_options(const std::function<bool()>& stop = {}) const;
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
