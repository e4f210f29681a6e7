// Sums over the ranks of a node, whose numbers one of them can read.
#pragma once

#include <cstdint>

namespace comigs::kernels {

/// sums[i] = numbers[0][i] + numbers[1][i] + ..., in this order, in float32.
struct RankSum {
  static constexpr int most_ranks = 64;

  int ranks = 0;
  std::int64_t count = 0;
  const float* numbers[most_ranks] = {};  ///< of each rank, [count]
  float* sums = nullptr;                  ///< [count]; may be one rank's numbers
  bool in_bfloat16 = false;  ///< numbers and sums are rounded to bfloat16, terms added in float32
};

/// In host memory.
void rank_sum(const RankSum& sum);
/// In device memory, on the card or others' that it reads, queued on `stream` (a cudaStream_t). Throws
/// CommError if it cannot be launched or was not built in.
void rank_sum_device(const RankSum& sum, void* stream);

}  // namespace comigs::kernels
