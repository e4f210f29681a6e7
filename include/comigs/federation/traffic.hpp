// What users send: payload in bytes that a rank hands to MPI. Aggregations count by it, and so does who
// reckons a run before it begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comigs/adapter/layout.hpp"
#include "comigs/comm/reduction.hpp"
#include "comigs/config/config.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/federation/shared_means.hpp"

namespace comigs::federation {

/// How a run adds up.
[[nodiscard]] comm::Sums sums(const config::Run& run);

/// Of a sum of `count` numbers.
[[nodiscard]] std::int64_t bytes_of_sum(std::int64_t count, comm::Sums sums);
/// Of the means of what is shared.
[[nodiscard]] std::int64_t bytes_of_means(const std::vector<SharedSlice>& slices, comm::Sums sums);
/// Of PCL's mixture of `count` numbers in `round` (from 1); where users judge each other's models these are
/// sent for that too.
[[nodiscard]] std::int64_t bytes_of_mixing(std::int64_t count, std::int64_t round);
/// Of FlexLoRA's decomposition by user `user` of those with these LoRA ranks: its factors, and the results of
/// the LoRA that it decomposes.
[[nodiscard]] std::int64_t bytes_of_decomposition(std::span<const adapter::Widths> loras,
                                                  const std::vector<std::int64_t>& ranks, std::size_t user);

/// Numbers in the factors of these LoRA, were their rank `rank`.
[[nodiscard]] std::int64_t padded_count(std::span<const adapter::Widths> loras, std::int64_t rank);
/// Which of so many users decomposes LoRA `lora`.
[[nodiscard]] std::size_t decomposer(std::size_t lora, std::size_t users);

/// Every user's LoRA rank.
[[nodiscard]] std::vector<std::int64_t> ranks_of(const std::vector<adapter::UserModel>& users);

}  // namespace comigs::federation
