// What the device kernels are written against, so that their text (indices, tiles, sums, arithmetic) also
// runs on a CPU, in tests: a Block of threads, in warps of 32, that goes from one phase to the next together.
//
// A Block has
//   threads                     how many, known when it is compiled
//   Local<T>                    a T of every thread, in its registers: local[thread]
//   memory()                    floats that all threads of the block share
//   each(f)                     f(thread) for every thread, where f touches nothing that is another's
//   phase(f)                    f(thread) for every thread; then each sees what the others wrote
//   each_warp(f)                f(warp) for every warp, then as phase
//   exchange(from, to, bit)     to[thread] = from[thread ^ bit], for bit below 32; of floats or Packs
// and a Warp has Local, each, phase and exchange for its own threads alone, its index() in the block, and
//   ballot(flag)                flag[thread] of its threads, a bit each
//   transpose(of, to)           of the 8 x 8 numbers of bfloat16 of which lane 4 i + j has row i, columns 2 j
//                               and 2 j + 1, in of(thread): to[thread] as many of the transposed matrix
//   multiply_add(sum, a, b)     sum += a b in float32, for a [16, 8], b [8, 8] of bfloat16. Lane 4 i + j has
//                               in a(thread) columns 2 j, 2 j + 1 of rows i and i + 8, in b(thread) rows 2 j,
//                               2 j + 1 of column i, in sum(thread) columns 2 j, 2 j + 1 of rows i and i + 8
#pragma once

#include "number.hpp"

namespace comigs::kernels {

inline constexpr int warp_lanes = 32;

// `count` neighbours that are loaded and stored together.
template <class Number, int count>
struct alignas(sizeof(Number) * count) Pack {
  Number at[count];
};

COMIGS_HOST_DEVICE inline int count_bits(std::uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// Combines the values of all threads of a block; every thread gets the result. Takes a float of the block's
// memory for every warp. The order is fixed, so the bits are the same at every run.
template <class Block, class Operation>
COMIGS_DEVICE void combine(Block& block, typename Block::template Local<float>& value,
                           const Operation& operation) {
  typename Block::template Local<float> other;
  for (int bit = warp_lanes / 2; bit > 0; bit /= 2) {
    block.exchange(value, other, bit);
    block.each([&](int thread) { value[thread] = operation(value[thread], other[thread]); });
  }
  float* of_warp = block.memory();
  block.phase([&](int thread) {
    if (thread % warp_lanes == 0) of_warp[thread / warp_lanes] = value[thread];
  });
  block.phase([&](int thread) {
    float all = of_warp[0];
    for (int warp = 1; warp < Block::threads / warp_lanes; ++warp) all = operation(all, of_warp[warp]);
    value[thread] = all;
  });
}

// Sums the first `count` of a Local pack's values over the lanes of a warp. Five times lanes that differ in a
// bit share the values among them, half each, so that in the end a lane's first one is the sum of value lane
// count / 32.
template <int count, int bit = warp_lanes / 2, class Warp, class Values>
COMIGS_DEVICE void sum_over_lanes(Warp& warp, Values& values) {
  if constexpr (bit > 0) {
    constexpr int kept = count > 1 ? count / 2 : 1, upper = count / 2;  // one value is added as it is
    typename Warp::template Local<Pack<float, kept>> sent, received;
    warp.each([&](int thread) {
      const bool keeps_upper = (thread & bit) != 0;
      for (int i = 0; i < kept; ++i) {
        const float low = values[thread].at[i], high = values[thread].at[upper + i];
        sent[thread].at[i] = keeps_upper ? low : high;
        values[thread].at[i] = keeps_upper ? high : low;
      }
    });
    warp.exchange(sent, received, bit);
    warp.each([&](int thread) {
      for (int i = 0; i < kept; ++i) values[thread].at[i] += received[thread].at[i];
    });
    sum_over_lanes<kept, bit / 2>(warp, values);
  }
}

}  // namespace comigs::kernels
