// A method's aggregation among the users who are present.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/federation/aggregation.hpp"
#include "comigs/job/job.hpp"
#include "comigs/run/seat.hpp"

namespace comigs::run {

/// How a job aggregates what the seat's user shares; `config`: with the user's micro-batches as they fit.
/// Keeps references to all it is given.
[[nodiscard]] federation::AggregationSetup aggregation_setup(const comm::Communicator& world,
                                                             const job::Job& job,
                                                             const config::Config& config,
                                                             const model::BaseModel& base, Seat& seat);

/// A method's aggregation rule among the users who are present; at first all. Rules know these only: when
/// somebody goes, PCL's W is uniform again until its next renewal, and no rank is pruned in that round.
class PresentAggregation : public federation::Aggregation {
 public:
  /// Collective over the world. `user`: whose parameters the set-up has.
  PresentAggregation(const federation::AggregationSetup& setup, std::size_t user);

  /// Collective over the world. From now on among these users, rising; there must be one.
  void all_restrict(std::vector<std::size_t> present);

  /// Collective over the world. Weights are by all users of the run, with zeros for those who are not
  /// present; one who is not keeps what it has.
  federation::Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return changes_parameters_; }
  [[nodiscard]] train::LocalTrainer::Exchange exchange() override;
  [[nodiscard]] train::Regulariser regulariser() override;
  [[nodiscard]] std::optional<std::int64_t> ranks_left() const override;
  void leave_ranks(std::int64_t rank) override;
  /// Of the user's experts; that with which it went, if it has gone.
  [[nodiscard]] std::int64_t rank_in_use() const;
  [[nodiscard]] std::vector<double> state() const override;

 private:
  void take(const std::vector<double>& state) override;

  federation::AggregationSetup all_;
  std::size_t user_;
  std::vector<std::size_t> present_;               ///< users, rising
  std::vector<adapter::UserModel> models_;         ///< theirs
  std::optional<comm::Communicator> group_;        ///< theirs; nothing where the user is not present
  std::unique_ptr<federation::Aggregation> rule_;  ///< likewise
  std::optional<std::int64_t> ranks_left_;         ///< when the rule was made
  bool changes_parameters_ = false;
};

}  // namespace comigs::run
