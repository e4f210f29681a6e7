// HetLoRA (Cho et al. 2023): users of different LoRA ranks, which prune themselves.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "comigs/base/error.hpp"
#include "comigs/federation/rank_rules.hpp"
#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

namespace {

constexpr double default_regulariser = 5e-3;

// [lora, rank]: each LoRA's norms as shares of their sum over ranks.
std::vector<double> all_norm_weights(const comm::Communicator& world,
                                     const std::vector<adapter::Lora>& loras) {
  const at::Tensor own = adapter::product_norms(loras).to(at::kCPU);
  const std::vector<double> by_rank = world.all_gather(
      std::span(own.const_data_ptr<double>(), static_cast<std::size_t>(own.numel())));  // [rank, lora]
  const auto ranks = static_cast<std::size_t>(world.size());
  std::vector<double> weights(by_rank.size());
  for (std::size_t l = 0; l < loras.size(); ++l) {
    double sum = 0.0;
    for (std::size_t r = 0; r < ranks; ++r) sum += by_rank[r * loras.size() + l];
    for (std::size_t r = 0; r < ranks; ++r)
      weights[l * ranks + r] =
          sum > 0.0 ? by_rank[r * loras.size() + l] / sum : 1.0 / static_cast<double>(ranks);
  }
  return weights;
}

// The two factors' places in the scratch memory, padded to `largest`: A [largest, in] and B^T [largest, out],
// so that a user's own ranks are the leading rows of both.
template <class Visit>
void for_each_padded(const std::vector<adapter::Lora>& loras, std::int64_t largest, const at::Tensor& padded,
                     const Visit& visit) {
  std::int64_t offset = 0;
  for (std::size_t l = 0; l < loras.size(); ++l) {
    for (const at::Tensor& own : {loras[l].A.detach(), loras[l].B.detach().t()}) {
      const at::Tensor place = padded.narrow(0, offset, largest * own.size(1))
                                   .view({largest, own.size(1)})
                                   .narrow(0, 0, own.size(0));
      visit(l, own, place);
      offset += largest * own.size(1);
    }
  }
}

}  // namespace

std::vector<double> all_pad_and_average(const comm::Communicator& world, comm::Reduction& reduction,
                                        const std::vector<adapter::Lora>& loras, std::int64_t largest,
                                        std::int64_t keep, at::Tensor& padded) {
  const std::vector<double> weights = all_norm_weights(world, loras);
  padded.zero_();
  for_each_padded(loras, largest, padded, [&](std::size_t l, const at::Tensor& own, const at::Tensor& place) {
    const std::size_t index =
        l * static_cast<std::size_t>(world.size()) + static_cast<std::size_t>(world.rank());
    place.copy_(own * weights[index]);
  });
  reduction.all_sum(world, settled(padded));
  for_each_padded(loras, largest, padded, [&](std::size_t, const at::Tensor& own, const at::Tensor& place) {
    own.copy_(place);
    own.narrow(0, keep, own.size(0) - keep).zero_();
  });
  return weights;
}

namespace {

void clear_ranks_from(const std::vector<adapter::Lora>& loras, std::int64_t rank) {
  for (const adapter::Lora& lora : loras) {
    const std::int64_t unused = lora.A.size(0) - rank;
    lora.A.detach().narrow(0, rank, unused).zero_();
    lora.B.detach().narrow(1, rank, unused).zero_();
  }
}

// Local training is penalised by the norm of the ranks that may go next. Where it ends below what the user
// was handed, the user goes on with the ranks that are kept; the others are zero in A and B from then on.
class PaddedMeans : public Aggregation {
 public:
  explicit PaddedMeans(const AggregationSetup& setup)
      : setup_(setup),
        rank_(setup.parameters.user_model().lora_rank),
        reduction_(setup.memory, setup.sums),
        padded_(at::empty({padded_count(setup.parameters.layout().loras(select()), largest())},
                          setup.parameters.values().options())),
        tail_norm_received_(own_tail_norm()) {}

  Aggregated all_aggregate(std::int64_t) override {
    if (own_tail_norm() < tail_norm_received_) leave_ranks(kept());
    const std::vector<adapter::Lora> loras = this->loras();
    const std::vector<double> weights =
        all_pad_and_average(setup_.world, reduction_, loras, largest(), rank_, padded_);
    tail_norm_received_ = own_tail_norm();
    Aggregated done{
        .bytes = bytes_of_reduction(padded_.numel(), setup_.sums) + all_average_attention(setup_, reduction_),
        .weights = std::vector<double>(setup_.users.size(), 0.0)};
    for (std::size_t i = 0; i < weights.size(); ++i)
      done.weights[i % setup_.users.size()] += weights[i] / static_cast<double>(loras.size());
    return done;
  }

  [[nodiscard]] bool changes_parameters() const override { return true; }

  [[nodiscard]] train::Regulariser regulariser() override {
    return {.term = [this] { return penalty(); },
            // The optimiser's momentum would move pruned ranks on.
            .after_step = [this] { clear_pruned(); },
            .version = rank_};
  }

  [[nodiscard]] std::optional<std::int64_t> ranks_left() const override { return rank_; }
  void leave_ranks(std::int64_t rank) override {
    rank_ = rank;
    clear_pruned();
    tail_norm_received_ = own_tail_norm();
  }

  [[nodiscard]] std::vector<double> state() const override { return {tail_norm_received_}; }

 private:
  void take(const std::vector<double>& state) override { tail_norm_received_ = state.front(); }

  [[nodiscard]] adapter::Select select() const { return of_users_rank(setup_.parameters.user_model()); }
  [[nodiscard]] std::vector<adapter::Lora> loras() const { return setup_.parameters.loras(select()); }
  [[nodiscard]] std::int64_t largest() const { return std::ranges::max(ranks_of(setup_.users)); }
  [[nodiscard]] std::int64_t kept() const {
    return rank_after_pruning(rank_, setup_.options.pruning_strength);
  }

  [[nodiscard]] double own_tail_norm() const {
    if (kept() == rank_) return 0.0;
    const at::NoGradGuard no_gradients;
    return tail_norm(loras(), kept(), rank_).item<double>();
  }

  [[nodiscard]] train::Regulariser::Term penalty() const {
    const double weight = setup_.options.rank_regulariser.value_or(default_regulariser);
    if (kept() == rank_ || weight == 0.0) return {};
    return {.weight = weight, .value = tail_norm(loras(), kept(), rank_)};
  }

  void clear_pruned() const {
    if (rank_ < setup_.parameters.user_model().lora_rank) clear_ranks_from(loras(), rank_);
  }

  AggregationSetup setup_;
  std::int64_t rank_;  // in use
  comm::Reduction reduction_;
  at::Tensor padded_;
  double tail_norm_received_;
};

// The penalty alone, which any method may have, needs to know what it is taken of.
std::string text(const config::Method& options) {
  const bool given = options.pruning_strength != config::Method().pruning_strength;
  return given && !options.rank_regulariser ? fmt::format("pruning_strength = {}", options.pruning_strength)
                                            : std::string();
}

std::string_view idle(const Rule& rule, const config::Method& options, const config::User& user) {
  if (&rule != &rules::padding && options.rank_regulariser.value_or(0.0) == 0.0)
    return "the method prunes no ranks";
  const std::int64_t left = rank_after_pruning(user.lora_rank, options.pruning_strength);
  return left == user.lora_rank ? "no rank can be pruned" : "";
}

constexpr RuleOptions pruning{.text = text, .lacking = "prunes no ranks", .idle = idle};

RuleCost cost(const RuleUser& of) {
  const adapter::UserModel& user = of.users[of.user];
  const std::int64_t count =
      padded_count(of.layout.loras(of_users_rank(user)), std::ranges::max(ranks_of(of.users)));
  const comm::Sums how = sums(of.config.run);
  return {.bytes = bytes_of_reduction(count, how) + bytes_of_attention(of.layout, user, how),
          .kept_bytes = bytes_of_numbers(count)};
}

}  // namespace

constinit const Rule rules::padding{
    .averaged = "padded",
    .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
      return std::make_unique<PaddedMeans>(setup);
    },
    .cost = cost,
    .options = &pruning,
    .any_rank = true,
    .own_weights = true};

}  // namespace comigs::federation
