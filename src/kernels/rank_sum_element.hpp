// The sum of one number of each rank, compiled for the CPU and for CUDA from this one text.
#pragma once

#include "comigs/kernels/rank_sum.hpp"
#include "number.hpp"

namespace comigs::kernels {

// NaN stays what it is: rounded as other numbers are, some of it would become zero.
COMIGS_HOST_DEVICE inline float through_bfloat16(float value) {
  if (value != value) return value;
  Bfloat16 number;
  from_float(value, number);
  return to_float(number);
}

COMIGS_HOST_DEVICE inline void rank_sum_element(const RankSum& sum, std::int64_t i) {
  const auto number = [&](int rank) {
    return sum.in_bfloat16 ? through_bfloat16(sum.numbers[rank][i]) : sum.numbers[rank][i];
  };
  float total = number(0);
  for (int rank = 1; rank < sum.ranks; ++rank) total += number(rank);
  sum.sums[i] = sum.in_bfloat16 ? through_bfloat16(total) : total;
}

}  // namespace comigs::kernels
