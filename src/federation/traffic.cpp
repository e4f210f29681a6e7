#include "comigs/federation/traffic.hpp"

#include <algorithm>

#include "comigs/federation/collaboration.hpp"

namespace comigs::federation {

namespace {

constexpr auto bytes_of_float = static_cast<std::int64_t>(sizeof(float));

}  // namespace

std::vector<std::int64_t> ranks_of(const std::vector<adapter::UserModel>& users) {
  std::vector<std::int64_t> ranks;
  for (const adapter::UserModel& user : users) ranks.push_back(user.lora_rank);
  return ranks;
}

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

}  // namespace comigs::federation
