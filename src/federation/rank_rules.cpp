#include "comigs/federation/rank_rules.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "comigs/federation/shared_slices.hpp"
#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

adapter::Select of_users_rank(const adapter::UserModel& user) {
  return user.attention_rank ? adapter::select::experts() : adapter::select::factors();
}

std::int64_t all_average_attention(const AggregationSetup& setup, comm::Reduction& reduction) {
  if (!setup.parameters.user_model().attention_rank) return 0;
  const adapter::Slice slice = setup.parameters.layout().slice(adapter::select::attention());
  all_weighted_mean(setup.world, reduction, adapter::view(setup.parameters.values(), slice),
                    1.0 / static_cast<double>(setup.users.size()));
  return bytes_of_attention(setup.parameters.layout(), setup.parameters.user_model(), setup.sums);
}

std::int64_t bytes_of_attention(const adapter::Layout& layout, const adapter::UserModel& user,
                                comm::Sums sums) {
  if (!user.attention_rank) return 0;
  return bytes_of_reduction(layout.slice(adapter::select::attention()).count, sums);
}

std::int64_t rank_after_pruning(std::int64_t rank, double strength) {
  return std::max<std::int64_t>(1,
                                static_cast<std::int64_t>(std::floor(strength * static_cast<double>(rank))));
}

at::Tensor tail_norm(const std::vector<adapter::Lora>& loras, std::int64_t begin, std::int64_t end) {
  at::Tensor sum;
  for (const adapter::Lora& lora : loras) {
    const at::Tensor product =
        lora.A.narrow(0, begin, end - begin).norm() * lora.B.narrow(1, begin, end - begin).norm();
    sum = sum.defined() ? sum + product : product;
  }
  return sum;
}

train::Regulariser tail_penalty(const AggregationSetup& setup) {
  const adapter::Parameters& parameters = setup.parameters;
  const adapter::UserModel& user = parameters.user_model();
  const double weight = setup.options.rank_regulariser.value_or(0.0);
  const std::int64_t kept = rank_after_pruning(user.lora_rank, setup.options.pruning_strength);
  if (weight == 0.0 || kept == user.lora_rank) return {};
  return {.term = [weight, kept, &parameters, &user]() -> train::Regulariser::Term {
            return {.weight = weight,
                    .value = tail_norm(parameters.loras(of_users_rank(user)), kept, user.lora_rank)};
          },
          .after_step = {},
          .version = 0};
}

std::vector<std::int64_t> ranks_of(const std::vector<adapter::UserModel>& users) {
  std::vector<std::int64_t> ranks;
  for (const adapter::UserModel& user : users) ranks.push_back(user.lora_rank);
  return ranks;
}

std::int64_t padded_count(std::span<const adapter::Widths> loras, std::int64_t rank) {
  std::int64_t count = 0;
  for (const adapter::Widths& lora : loras) count += rank * (lora.in + lora.out);
  return count;
}

}  // namespace comigs::federation
