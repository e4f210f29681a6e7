#include "comigs/federation/traffic.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "comigs/federation/collaboration.hpp"

namespace comigs::federation {

namespace {

constexpr auto bytes_of_float = static_cast<std::int64_t>(sizeof(float));

std::vector<std::int64_t> ranks_of(const std::vector<adapter::UserModel>& users) {
  std::vector<std::int64_t> ranks;
  for (const adapter::UserModel& user : users) ranks.push_back(user.lora_rank);
  return ranks;
}

}  // namespace

comm::Sums sums(const config::Run& run) {
  if (run.communication == config::Precision::bf16) return comm::Sums::bf16;
  return run.reproducible ? comm::Sums::rank_order : comm::Sums::any_order;
}

std::int64_t bytes_of_sum(std::int64_t count, comm::Sums sums) {
  return count * (sums == comm::Sums::bf16 ? 2 : bytes_of_float);
}

std::int64_t bytes_of_means(const std::vector<SharedSlice>& slices, comm::Sums sums) {
  std::int64_t bytes = 0;
  for (const SharedSlice& shared : slices) bytes += bytes_of_sum(shared.slice.count, sums);
  return bytes;
}

std::int64_t bytes_of_mixing(std::int64_t count, std::int64_t round) {
  return (renews_collaboration(round) ? 2 : 1) * count * bytes_of_float;
}

std::int64_t bytes_of_decomposition(std::span<const adapter::Widths> loras,
                                    const std::vector<std::int64_t>& ranks, std::size_t user) {
  const std::int64_t largest = *std::ranges::max_element(ranks);
  std::int64_t count = padded_count(loras, ranks[user]);
  for (std::size_t l = 0; l < loras.size(); ++l)
    if (decomposer(l, ranks.size()) == user) count += padded_count(loras.subspan(l, 1), largest);
  return count * bytes_of_float;
}

std::int64_t padded_count(std::span<const adapter::Widths> loras, std::int64_t rank) {
  std::int64_t count = 0;
  for (const adapter::Widths& lora : loras) count += rank * (lora.in + lora.out);
  return count;
}

std::size_t decomposer(std::size_t lora, std::size_t users) { return lora % users; }

std::int64_t bytes_in_round(const Method& method, const config::Config& config,
                            const std::vector<adapter::UserModel>& users, std::size_t user,
                            const adapter::Layout& layout, std::int64_t round) {
  const comm::Sums how = sums(config.run);
  const std::vector<std::int64_t> ranks = ranks_of(users);
  switch (method.rule) {
    case Rule::mean:
      return bytes_of_means(shared_slices(users, static_cast<std::int64_t>(user), layout), how);
    case Rule::gradients:
      return config.users[user].local_steps * bytes_of_sum(layout.slice(adapter::select::lora()).count, how);
    case Rule::collaboration:
      return bytes_of_mixing(layout.slice(adapter::select::lora()).count, round);
    case Rule::padding:
      return bytes_of_sum(padded_count(layout.loras(), *std::ranges::max_element(ranks)), how);
    case Rule::decomposition:
      return bytes_of_decomposition(layout.loras(), ranks, user);
  }
  return 0;
}

}  // namespace comigs::federation
