// FDLoRA's last step: each user's own LoRA and the averaged one are fused (Qi et al. 2024, arXiv:2406.07925).
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/federation/collaboration.hpp"
#include "comigs/federation/fusion.hpp"
#include "comigs/federation/shared_slices.hpp"
#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

namespace {

constexpr double l1_weight = 0.05;
constexpr std::array grid{0.0, 0.5, 1.0};
constexpr std::array refinements{0.25, 0.125};

}  // namespace

std::optional<FusionWeights> search_fusion(const std::function<double(FusionWeights)>& loss) {
  std::optional<FusionWeights> best;
  double least = std::numeric_limits<double>::infinity();
  const auto attempt = [&](FusionWeights tried) {
    if (std::max(std::abs(tried.own), std::abs(tried.average)) > 1.0) return;
    const double found = loss(tried) + l1_weight * (std::abs(tried.own) + std::abs(tried.average));
    if (found < least) std::tie(least, best) = std::pair(found, tried);
  };
  for (const double own : grid)
    for (const double average : grid) attempt({own, average});
  for (const double step : refinements) {
    const FusionWeights centre = best.value_or(FusionWeights());
    for (const double own : {-step, 0.0, step})
      for (const double average : {-step, 0.0, step})
        if (own != 0.0 || average != 0.0) attempt({centre.own + own, centre.average + average});
  }
  return best;
}

namespace {

class Fusion : public Aggregation {
 public:
  explicit Fusion(const AggregationSetup& setup) : setup_(setup), means_(rules::mean.all_make(setup)) {}

  Aggregated all_aggregate(std::int64_t round) override {
    if (round != setup_.rounds) return means_->all_aggregate(round);
    const at::Tensor own = trained().clone();
    Aggregated done = means_->all_aggregate(round);
    FusionWeights found;
    comm::all_agree(setup_.world, [&] { found = fuse(own, round); });
    for (double& weight : done.weights) weight *= found.average;
    done.weights[static_cast<std::size_t>(setup_.world.rank())] += found.own;
    return done;
  }
  [[nodiscard]] bool changes_parameters() const override { return true; }

 private:
  [[nodiscard]] at::Tensor trained() const {
    return adapter::view(setup_.parameters.values(),
                         setup_.parameters.layout().slice(adapter::select::factors()));
  }

  [[nodiscard]] FusionWeights fuse(const at::Tensor& own, std::int64_t round) const {
    const at::Tensor average = trained().clone();
    const auto fused = [&](FusionWeights weights) { return own * weights.own + average * weights.average; };
    const auto best =
        search_fusion([&](FusionWeights tried) { return setup_.validation_loss(fused(tried), round); });
    if (!best)
      throw NumericError(
          fmt::format("round {}: no mixture of the user's own and the averaged LoRA has a finite loss on its "
                      "validation data",
                      round));
    trained().copy_(fused(*best));
    return *best;
  }

  AggregationSetup setup_;
  std::unique_ptr<Aggregation> means_;
};

}  // namespace

constinit const Rule rules::fusion{
    .averaged = "mean, fused",
    .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
      return std::make_unique<Fusion>(setup);
    },
    .cost =
        [](const RuleUser& of) {
          RuleCost cost = cost_of_slices(of);
          const std::int64_t last = of.config.run.rounds;
          cost.extra = {.in_round = [last](std::int64_t round) { return round == last; },
                        .bytes = 0,
                        .batches = fusions_tried * batches_judged};
          // Both parts, one fused, and the parameters that fusions are judged with, and their gradients.
          cost.kept_bytes = 3 * bytes_of_numbers(of.layout.slice(adapter::select::factors()).count) +
                            2 * bytes_of_numbers(of.layout.size());
          return cost;
        },
    .sums_alone = true};

}  // namespace comigs::federation
