#include "comigs/federation/aggregation.hpp"

#include "comigs/base/error.hpp"

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

}  // namespace comigs::federation
