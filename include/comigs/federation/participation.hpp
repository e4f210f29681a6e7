// Who still takes part in a run, and the aggregation among them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/federation/aggregation.hpp"

namespace comigs::federation {

/// A method's aggregation rule among the users who have not dropped out; at first all. Rules know the users
/// who are left only: PCL's W is uniform again until its next renewal, HetLoRA prunes nothing in the round in
/// which somebody goes.
class Participation : public Aggregation {
 public:
  /// Collective over the world.
  explicit Participation(const AggregationSetup& setup);

  /// Collective over the world. These users [user] take part no more; somebody must be left.
  void all_drop(const std::vector<bool>& users);
  [[nodiscard]] bool includes(std::size_t user) const { return included_.at(user); }

  /// Collective over the world. Weights are by all users of the run, with zeros for those who have gone; one
  /// who has keeps what it has.
  Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return changes_parameters_; }
  [[nodiscard]] train::LocalTrainer::Exchange exchange() override;
  [[nodiscard]] train::Regulariser regulariser() override;
  [[nodiscard]] std::optional<std::int64_t> ranks_left() const override;
  void leave_ranks(std::int64_t rank) override;
  /// Of this user's LoRA; that with which it went, if it has gone.
  [[nodiscard]] std::int64_t rank_in_use() const;
  [[nodiscard]] std::vector<double> state() const override;

 private:
  void take(const std::vector<double>& state) override;

  AggregationSetup all_;
  std::vector<bool> included_;
  std::vector<std::size_t> left_;            ///< users who take part, rising
  std::vector<adapter::UserModel> models_;   ///< theirs
  std::optional<comm::Communicator> group_;  ///< theirs; nothing on a rank that has gone
  std::unique_ptr<Aggregation> rule_;        ///< likewise
  std::optional<std::int64_t> ranks_left_;   ///< when the rule was made
  bool changes_parameters_ = false;
};

}  // namespace comigs::federation
