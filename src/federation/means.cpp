// Averages: of what users hold in common, once a round, and of all users' gradients, at every step.
#include <ATen/ATen.h>

#include <utility>

#include "comigs/federation/shared_slices.hpp"
#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

void all_weighted_mean(const comm::Communicator& group, comm::Reduction& reduction, const at::Tensor& values,
                       double weight) {
  values.mul_(weight);
  reduction.all_sum(group, settled(values));
}

namespace {

std::vector<double> weights_asked_for(const AggregationSetup& setup, std::span<const std::int64_t> holders) {
  return setup.options.averaging == config::Averaging::uniform ? equal_weights(setup, holders)
                                                               : shares_of_amounts(setup, holders);
}

// One model for all (`centralized`): the users' gradients are averaged at every step, so that nothing is
// left to aggregate.
class GradientMeans : public Aggregation {
 public:
  explicit GradientMeans(const AggregationSetup& setup)
      : setup_(setup), reduction_(setup.memory, setup.sums) {}

  Aggregated all_aggregate(std::int64_t) override {
    return {.bytes = std::exchange(bytes_, 0),
            .weights = std::vector<double>(setup_.users.size(), own_weight())};
  }
  [[nodiscard]] bool changes_parameters() const override { return false; }
  [[nodiscard]] train::LocalTrainer::Exchange exchange() override {
    return [this](const at::Tensor& gradients) {
      all_weighted_mean(setup_.world, reduction_, gradients, own_weight());
      bytes_ += bytes_of_reduction(gradients.numel(), setup_.sums);
    };
  }
  [[nodiscard]] std::vector<double> state() const override { return {static_cast<double>(bytes_)}; }

 private:
  void take(const std::vector<double>& state) override { bytes_ = static_cast<std::int64_t>(state.front()); }
  [[nodiscard]] double own_weight() const { return 1.0 / static_cast<double>(setup_.users.size()); }

  AggregationSetup setup_;
  comm::Reduction reduction_;
  std::int64_t bytes_ = 0;
};

}  // namespace

constinit const Rule rules::mean{
    .averaged = "mean",
    .all_make =
        [](const AggregationSetup& setup) {
          return all_make_slicewise(setup, {.weigh = weights_asked_for, .all_combine = all_weighted_mean});
        },
    .cost = cost_of_slices,
    .by_slices = true,
    .sums_alone = true};

constinit const Rule rules::gradients{
    .averaged = "gradients",
    .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
      return std::make_unique<GradientMeans>(setup);
    },
    .cost = [](const RuleUser& of) -> RuleCost {
      const std::int64_t steps = of.config.users[of.user].local_steps;
      const auto bytes = [&](const adapter::Select& select) {
        return steps * bytes_of_reduction(of.layout.slice(select).count, sums(of.config.run));
      };
      // Of a gate by sequence in every round, of experts not where it is warmed up.
      const std::int64_t experts = bytes(adapter::select::factors()),
                         routers = bytes(adapter::select::routers());
      if (routers == 0) return {.bytes = experts};
      return {.bytes = routers,
              .extra = {.in_round = [W = of.config.method.gate_warmup_rounds](
                                        std::int64_t round) { return round > W; },
                        .bytes = experts}};
    },
    .every_step = true,
    .one_shape = true,
    .own_weights = true,
    .sums_alone = true};

}  // namespace comigs::federation
