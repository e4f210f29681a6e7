#include "comigs/federation/collaboration.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/federation/traffic.hpp"
#include "comigs/train/evaluation.hpp"

namespace comigs::federation {

namespace {

constexpr std::int64_t first_renewal = 5, rounds_between_renewals = 2;

// Whether users judge each other's models in this round (from 1).
bool renews(std::int64_t round) {
  return round >= first_renewal && (round - first_renewal) % rounds_between_renewals == 0;
}

bool mixes(config::Mixing mixing, std::int64_t round) {
  return mixing == config::Mixing::every_round || renews(round);
}

// Sent in the round for so many numbers: to be mixed, and before that to be judged where that is due.
RuleCost cost_of(std::int64_t count, config::Mixing mixing) {
  const std::int64_t bytes = bytes_of_numbers(count);
  const bool always = mixing == config::Mixing::every_round;
  return {.bytes = always ? bytes : 0, .extra = {.in_round = renews, .bytes = always ? bytes : 2 * bytes}};
}

// Collective. Rank `source`'s values on every rank, in host memory.
at::Tensor all_receive(const comm::Communicator& world, const at::Tensor& values, int source) {
  at::Tensor host = world.rank() == source ? values.to(at::kCPU).contiguous()
                                           : at::empty(values.sizes(), at::TensorOptions().dtype(at::kFloat));
  world.all_broadcast(std::span(host.data_ptr<float>(), static_cast<std::size_t>(host.numel())), source);
  return host.to(values.device());
}

}  // namespace

std::function<double(const at::Tensor&, std::int64_t)> validation_loss(const config::Config& config,
                                                                       const model::BaseModel& base,
                                                                       const adapter::Parameters& parameters,
                                                                       const data::TokenShard& validation,
                                                                       std::size_t user) {
  std::shared_ptr<adapter::Parameters> other;
  return [&config, &base, &parameters, &validation, user, other](const at::Tensor& values,
                                                                 std::int64_t round) mutable {
    if (!other)
      other = std::make_shared<adapter::Parameters>(base.architecture(), parameters.user_model(),
                                                    values.device());
    adapter::view(other->values(), {0, values.numel()}).copy_(values);
    return train::sampled_loss(base, *other, validation, batches_judged, config.users.at(user),
                               {.seed = config.run.seed,
                                .user = static_cast<std::uint32_t>(user),
                                .stream = Stream::collaboration_batch,
                                .round = static_cast<std::uint32_t>(round)});
  };
}

std::vector<double> collaboration_weights(const std::vector<double>& perplexities) {
  const double best = *std::min_element(perplexities.begin(), perplexities.end());
  std::vector<double> weights;
  double sum = 0.0;
  for (const double perplexity : perplexities) sum += weights.emplace_back(std::exp(best - perplexity));
  for (double& weight : weights) weight /= sum;
  return weights;
}

void all_mix(const comm::Communicator& world, const at::Tensor& values, std::span<const double> row) {
  at::Tensor mixed = at::zeros_like(values);
  for (int source = 0; source < world.size(); ++source)
    mixed.add_(all_receive(world, values, source), row[static_cast<std::size_t>(source)]);
  values.copy_(mixed);
}

namespace {

// Every user weighs every other's model by its perplexity on its own validation data. W is uniform at first
// and made anew in round 5 and every second round from then on; the authors' program mixes in those rounds
// only.
class Collaboration : public Aggregation {
 public:
  explicit Collaboration(const AggregationSetup& setup)
      : setup_(setup), row_(setup.users.size(), 1.0 / static_cast<double>(setup.users.size())) {}

  Aggregated all_aggregate(std::int64_t round) override {
    if (!mixes(setup_.options.mixing, round)) return {.bytes = 0, .weights = alone()};
    if (renews(round)) row_ = collaboration_weights(all_perplexities(round));
    all_mix(setup_.world, shared(), row_);
    return {.bytes = cost_of(shared().numel(), setup_.options.mixing).bytes_in(round), .weights = row_};
  }
  [[nodiscard]] bool changes_parameters() const override { return true; }
  [[nodiscard]] std::vector<double> state() const override { return row_; }

 private:
  void take(const std::vector<double>& row) override { row_ = row; }

  [[nodiscard]] at::Tensor shared() const {
    return adapter::view(setup_.parameters.values(),
                         setup_.parameters.layout().slice(adapter::select::factors()));
  }

  [[nodiscard]] std::vector<double> alone() const {
    std::vector<double> row(setup_.users.size(), 0.0);
    row[static_cast<std::size_t>(setup_.world.rank())] = 1.0;
    return row;
  }

  // Collective. Throws PeerError on every rank if a rank cannot evaluate.
  [[nodiscard]] std::vector<double> all_perplexities(std::int64_t round) const {
    std::vector<double> perplexities;
    std::optional<comm::Failure> failure;
    for (int source = 0; source < setup_.world.size(); ++source) {
      setup_.world.all_meet();
      const at::Tensor values = all_receive(setup_.world, shared(), source);
      if (failure) continue;
      failure = comm::capture([&] {
        perplexities.push_back(std::exp(setup_.validation_loss(values, round)));
        if (!std::isfinite(perplexities.back()))
          throw NumericError(fmt::format(
              "round {}: the model of user {} has no finite perplexity on other users' validation data",
              round, source));
      });
    }
    comm::all_agree_on(setup_.world, failure);
    return perplexities;
  }

  AggregationSetup setup_;
  std::vector<double> row_;
};

std::string mixing_text(const config::Method& options) {
  return options.mixing == config::Mixing::every_round ? std::string() : "mixing = renewals";
}

std::string_view unmixed(const Rule& rule, const config::Method&, const config::User&) {
  return &rule == &rules::collaboration ? "" : "the method mixes nothing by weights of users' own";
}

constexpr RuleOptions when_mixed{
    .text = mixing_text, .lacking = "has no mixture of its own to time", .idle = unmixed};

}  // namespace

constinit const Rule rules::collaboration{
    .averaged = "by user",
    .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
      return std::make_unique<Collaboration>(setup);
    },
    .cost =
        [](const RuleUser& of) {
          RuleCost cost = cost_of(of.layout.slice(adapter::select::factors()).count, of.config.method.mixing);
          cost.extra.batches = static_cast<std::int64_t>(of.users.size()) * batches_judged;
          // The parameters that other users' models are judged with, and their gradients.
          cost.kept_bytes = 2 * bytes_of_numbers(of.layout.size());
          return cost;
        },
    .options = &when_mixed,
    .one_shape = true,
    .own_weights = true,
    .in_users_order = true};

}  // namespace comigs::federation
