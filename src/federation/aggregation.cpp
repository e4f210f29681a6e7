#include "comigs/federation/aggregation.hpp"

#include <ATen/ATen.h>

#include "comigs/base/error.hpp"
#include "comigs/model/device.hpp"

namespace comigs::federation {

void Aggregation::restore(const std::vector<double>& kept) {
  if (kept.size() != state().size())
    throw DataError(fmt::format("a checkpoint with {} numbers of the aggregation rule, expected {}",
                                kept.size(), state().size()));
  take(kept);
}

std::unique_ptr<Aggregation> all_make_aggregation(const AggregationSetup& setup) {
  return setup.method.rule.all_make(setup);
}

std::vector<double> shares_of_amounts(const AggregationSetup& setup, std::span<const std::int64_t> users) {
  std::vector<double> shares;
  double sum = 0.0;
  for (const std::int64_t user : users)
    sum += shares.emplace_back(static_cast<double>(setup.amounts[static_cast<std::size_t>(user)]));
  for (double& share : shares) share /= sum;
  return shares;
}

std::span<float> settled(const at::Tensor& values) {
  model::synchronize(values.device());
  return {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())};
}

}  // namespace comigs::federation
