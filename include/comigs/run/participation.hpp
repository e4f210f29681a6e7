// Who still takes part in a run, and the aggregation among them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/federation/aggregation.hpp"

namespace comigs::run {

/// A method's aggregation rule among the users who have not dropped out; at first all. Rules know the users
/// who are left only: PCL's W is uniform again until its next renewal, HetLoRA prunes nothing in the round in
/// which somebody goes.
class Participation : public federation::Aggregation {
 public:
  /// Collective over the world.
  explicit Participation(const federation::AggregationSetup& setup);

  /// Collective over the world. These users [user] take part no more; somebody must be left.
  void all_drop(const std::vector<bool>& users);
  [[nodiscard]] bool includes(std::size_t user) const { return included_.at(user); }

  /// Collective over the world. Weights are by all users of the run, with zeros for those who have gone; one
  /// who has keeps what it has.
  federation::Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return changes_parameters_; }
  [[nodiscard]] train::LocalTrainer::Exchange exchange() override;
  [[nodiscard]] std::vector<double> state() const override;

 private:
  void take(const std::vector<double>& state) override;

  federation::AggregationSetup all_;
  std::vector<bool> included_;
  std::vector<std::size_t> left_;                  ///< users who take part, rising
  std::vector<adapter::UserModel> models_;         ///< theirs
  std::optional<comm::Communicator> group_;        ///< theirs; nothing on a rank that has gone
  std::unique_ptr<federation::Aggregation> rule_;  ///< likewise
  bool changes_parameters_ = false;
};

}  // namespace comigs::run
