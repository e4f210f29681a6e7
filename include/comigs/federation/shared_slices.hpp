// What users hold in common, and the rules that make one of it slice by slice (Algorithm 1, first line).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/federation/aggregation.hpp"
#include "comigs/federation/rule.hpp"

namespace comigs::federation {

/// A contiguous part of the block that a group of users holds in common.
struct SharedSlice {
  adapter::Slice slice;
  std::vector<std::int64_t> holders;  ///< users, rising
};

/// What user `user` shares with whom: attention LoRA and routers with all (if the method shares them), a
/// generalist with all who hold it; of each the factors that are shared. Neighbouring parts of the block with
/// the same holders are one slice; what nobody else holds is left out.
[[nodiscard]] std::vector<SharedSlice> shared_slices(const std::vector<adapter::UserModel>& users,
                                                     std::int64_t user, const adapter::Layout& layout);

/// Users who have one model with user `user`, it among them, rising: as they begin, and again after every
/// aggregation by the rule. Where nothing is trained, all have.
[[nodiscard]] std::vector<std::int64_t> users_of_one_model(const Rule& rule,
                                                           const std::vector<adapter::UserModel>& users,
                                                           std::int64_t user, const adapter::Layout& layout);

/// The parts of a rule that treats every shared slice alike, among its holders.
struct SliceRule {
  /// Local: the holders' weights [holder], which sum to 1.
  std::vector<double> (*weigh)(const AggregationSetup& setup, std::span<const std::int64_t> holders);
  /// Collective over the holders. Replaces `values`, a view of this user's block (float32, contiguous), by
  /// what all make of theirs, the same bits on each.
  void (*all_combine)(const comm::Communicator& holders, comm::Reduction& reduction, const at::Tensor& values,
                      double weight);
};

/// Collective over the group: `all_combine` of the mean, the sum of the members' values times their weights.
void all_weighted_mean(const comm::Communicator& group, comm::Reduction& reduction, const at::Tensor& values,
                       double weight);

/// Alike.
[[nodiscard]] std::vector<double> equal_weights(const AggregationSetup& setup,
                                                std::span<const std::int64_t> holders);

/// Collective over the world. A user with one expert takes part in its generalist's aggregation. Owns one
/// sub-communicator for each set of holders, made once.
[[nodiscard]] std::unique_ptr<Aggregation> all_make_slicewise(const AggregationSetup& setup,
                                                              const SliceRule& rule);

/// Of such a rule.
[[nodiscard]] RuleCost cost_of_slices(const RuleUser& of);

}  // namespace comigs::federation
