#include <ATen/ATen.h>

#include <algorithm>

#include "comigs/adapter/losses.hpp"
#include "comigs/federation/rank_rules.hpp"
#include "comigs/federation/traffic.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::federation {

namespace {

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
  model::synchronize(padded.device());
  reduction.all_sum(world, {padded.data_ptr<float>(), static_cast<std::size_t>(padded.numel())});
  for_each_padded(loras, largest, padded, [&](std::size_t, const at::Tensor& own, const at::Tensor& place) {
    own.copy_(place);
    own.narrow(0, keep, own.size(0) - keep).zero_();
  });
  return weights;
}

PaddedMeans::PaddedMeans(const AggregationSetup& setup)
    : setup_(setup), largest_(0), reduction_(setup.memory, setup.sums) {
  for (const adapter::UserModel& user : setup.users) largest_ = std::max(largest_, user.lora_rank);
  padded_ = at::empty({padded_count(setup.parameters.layout().loras(), largest_)},
                      setup.parameters.values().options());
  tail_norm_received_ = tail_norm();
}

Aggregated PaddedMeans::all_aggregate(std::int64_t) {
  const std::int64_t rank = setup_.parameters.rank_in_use();
  if (tail_norm() < tail_norm_received_)
    setup_.parameters.restrict_rank(train::rank_after_pruning(rank, setup_.pruning_strength));
  const std::vector<adapter::Lora> loras = setup_.parameters.loras();
  const std::vector<double> weights = all_pad_and_average(setup_.world, reduction_, loras, largest_,
                                                          setup_.parameters.rank_in_use(), padded_);
  tail_norm_received_ = tail_norm();
  Aggregated done{.bytes = bytes_of_sum(padded_.numel(), setup_.sums),
                  .weights = std::vector<double>(setup_.users.size(), 0.0)};
  for (std::size_t i = 0; i < weights.size(); ++i)
    done.weights[i % setup_.users.size()] += weights[i] / static_cast<double>(loras.size());
  return done;
}

double PaddedMeans::tail_norm() const {
  const std::int64_t rank = setup_.parameters.rank_in_use(),
                     kept = train::rank_after_pruning(rank, setup_.pruning_strength);
  if (kept == rank) return 0.0;
  const at::NoGradGuard no_gradients;
  return adapter::rank_tail_norm(setup_.parameters.loras(), kept, rank).item<double>();
}

namespace {
std::int64_t padded_count_of_all(const RuleCost& of) {
  return padded_count(of.layout.loras(), std::ranges::max(ranks_of(of.users)));
}
}  // namespace

const Rule rules::padding{
    .averaged = "padded",
    .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
      return std::make_unique<PaddedMeans>(setup);
    },
    .bytes_in_round = [](const RuleCost& of,
                         std::int64_t) { return bytes_of_sum(padded_count_of_all(of), sums(of.config.run)); },
    .kept_bytes =
        [](const RuleCost& of) { return padded_count_of_all(of) * static_cast<std::int64_t>(sizeof(float)); },
    .any_rank = true,
    .own_weights = true,
    .prunes_ranks = true};

}  // namespace comigs::federation
