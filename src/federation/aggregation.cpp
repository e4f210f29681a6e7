#include "comigs/federation/aggregation.hpp"

#include "comigs/base/error.hpp"
#include "comigs/federation/collaboration.hpp"
#include "comigs/federation/rank_rules.hpp"
#include "comigs/federation/shared_means.hpp"

namespace comigs::federation {

void Aggregation::restore(const std::vector<double>& kept) {
  if (kept.size() != state().size())
    throw DataError(fmt::format("a checkpoint with {} numbers of the aggregation rule, expected {}",
                                kept.size(), state().size()));
  take(kept);
}

std::unique_ptr<Aggregation> all_make_aggregation(const AggregationSetup& setup) {
  switch (setup.method.rule) {
    case Rule::mean:
      return std::make_unique<SharedMeans>(setup);
    case Rule::gradients:
      return std::make_unique<GradientMeans>(setup);
    case Rule::collaboration:
      return std::make_unique<Collaboration>(setup);
    case Rule::padding:
      return std::make_unique<PaddedMeans>(setup);
    case Rule::decomposition:
      return std::make_unique<Decomposition>(setup);
  }
  return nullptr;
}

}  // namespace comigs::federation
