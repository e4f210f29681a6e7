// Averages of what users share (Algorithm 1, first line), over the users who hold it.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/federation/aggregation.hpp"

namespace comigs::federation {

/// A contiguous part of the block that a group of users holds in common.
struct SharedSlice {
  adapter::Slice slice;
  std::vector<std::int64_t> holders;  ///< users, rising
};

/// What user `user` shares with whom: attention LoRA with all (if the method shares it), a generalist with
/// all who hold it; of each the factors that are shared. Neighbouring parts of the block with the same
/// holders are one slice; what nobody else holds is left out.
[[nodiscard]] std::vector<SharedSlice> shared_slices(const std::vector<adapter::UserModel>& users,
                                                     std::int64_t user, const adapter::Layout& layout);

/// Collective over the group. Replaces `values` (float32, contiguous) by the sum over its ranks of weight x
/// values, the same bits on each; weights sum to 1 over the group.
void all_weighted_mean(const comm::Communicator& group, comm::Reduction& reduction, const at::Tensor& values,
                       double weight);

/// The mean of each shared slice over its holders, uniform or by their training tokens. A user with one
/// expert takes part in its generalist's mean. Owns one sub-communicator for each set of holders, made once.
class SharedMeans : public Aggregation {
 public:
  /// Collective over the world.
  explicit SharedMeans(const AggregationSetup& setup);

  Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return shares_anything_; }

 private:
  struct Group {
    std::vector<std::int64_t> holders;
    comm::Communicator communicator;
  };
  [[nodiscard]] double weight(const std::vector<std::int64_t>& holders, std::int64_t user) const;
  [[nodiscard]] std::vector<double> mixing_row() const;

  AggregationSetup setup_;
  std::vector<Group> groups_;
  std::vector<SharedSlice> slices_;
  comm::Reduction reduction_;
  bool shares_anything_ = false;
};

/// One model for all (`centralized`): the users' gradients are averaged at every step, so that nothing is
/// left to aggregate.
class GradientMeans : public Aggregation {
 public:
  explicit GradientMeans(const AggregationSetup& setup);

  Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return false; }
  [[nodiscard]] train::LocalTrainer::Exchange exchange() override;
  [[nodiscard]] std::vector<double> state() const override { return {static_cast<double>(bytes_)}; }

 private:
  void take(const std::vector<double>& state) override { bytes_ = static_cast<std::int64_t>(state.front()); }

  AggregationSetup setup_;
  comm::Reduction reduction_;
  std::int64_t bytes_ = 0;
};

}  // namespace comigs::federation
