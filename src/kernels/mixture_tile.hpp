// What both passes of the device's mixture share. A block has a tile of 128 tokens and 128 columns; each of
// its four warps has all columns of 32 of the tokens, a lane four columns of each. For an expert a warp takes
// the tokens that it is active for, four at a time: 16 numbers a lane, for which a load of four columns of a
// factor and one of four tokens' coefficients do 16 multiplications. Sums over experts stand in the block's
// memory, where a lane meets only its own columns.
#pragma once

#include <cstdint>

#include "block.hpp"
#include "comigs/kernels/mixture.hpp"

namespace comigs::kernels {

inline constexpr int lane_columns = 4, group_tokens = 4, window_ranks = 8;
inline constexpr int tile_warps = 4, tile_threads = tile_warps * warp_lanes;
inline constexpr int warp_tokens = 32, tile_tokens = tile_warps * warp_tokens;
inline constexpr int tile_columns = warp_lanes * lane_columns;

using Four = Pack<float, 4>;
/// Of each token of a group, the lane's columns.
struct GroupColumns {
  Four of[group_tokens];
};

// A shape in the numbers that the device multiplies fastest, and the places of its arrays.
struct Sizes {
  int tokens, inner, experts, rank;

  COMIGS_HOST_DEVICE explicit Sizes(const MixtureShape& shape)
      : tokens(static_cast<int>(shape.tokens)),
        inner(static_cast<int>(shape.inner)),
        experts(static_cast<int>(shape.experts)),
        rank(static_cast<int>(shape.rank)) {}

  /// In [n, E].
  COMIGS_HOST_DEVICE std::int64_t pair(int token, int expert) const {
    return std::int64_t{token} * experts + expert;
  }
  /// In [n, E, R].
  COMIGS_HOST_DEVICE std::int64_t coefficient(int token, int expert, int r) const {
    return std::int64_t{token} * (experts * rank) + (expert * rank + r);
  }
  /// The beginning of a row of [E, R, F].
  COMIGS_HOST_DEVICE std::int64_t factor(int expert, int r) const {
    return std::int64_t{expert * rank + r} * inner;
  }
  COMIGS_HOST_DEVICE std::int64_t pairs() const { return std::int64_t{tokens} * experts; }
  COMIGS_HOST_DEVICE std::int64_t coefficients() const { return pairs() * rank; }
  COMIGS_HOST_DEVICE std::int64_t factors() const { return factor(experts, 0); }
};

COMIGS_HOST_DEVICE inline std::int64_t tiles(std::int64_t count, std::int64_t tile) {
  return (count + tile - 1) / tile;
}

// gelu(z) = z s with s = sigmoid(2 sqrt(2/pi) (z + 0.044715 z^3)), which is 0.5 z (1 + tanh(...)). Far from
// zero the power is 0 or infinite, and s as it should be.
struct GeluPoint {
  float value, slope;
};
COMIGS_HOST_DEVICE inline GeluPoint gelu_point(float z) {
  constexpr float c = 1.5957691216057308f, cubic = 0.044715f * c, log2_e = 1.4426950408889634f;
  const float square = z * z;
  const float s = reciprocal(1.0f + power_of_two(z * (-cubic * log2_e * square - c * log2_e)));
  return {z * s, z * (s * (1.0f - s)) * (3.0f * cubic * square + c) + s};
}

// The columns of a lane. `together`: all rows are aligned and of a width that lanes divide, so that a lane's
// columns are all there or none; known when it is compiled, because a branch would keep loads from
// overlapping.
template <bool together>
struct LaneColumns {
  int first, width;

  template <class Number>
  COMIGS_DEVICE Number* row(Number* rows, int token) const {
    return rows + std::int64_t{token} * width;
  }
  // Columns beyond the width are 0.
  template <class Number>
  COMIGS_DEVICE Four load(const Number* from) const {
    Four values{};
    if constexpr (together) {
      if (first >= width) return values;
      const auto pack = *reinterpret_cast<const Pack<Number, lane_columns>*>(from + first);
      for (int j = 0; j < lane_columns; ++j) values.at[j] = to_float(pack.at[j]);
    } else {
      for (int j = 0; j < lane_columns; ++j)
        if (first + j < width) values.at[j] = to_float(from[first + j]);
    }
    return values;
  }
  template <class Number>
  COMIGS_DEVICE void store(const Four& values, Number* to) const {
    Pack<Number, lane_columns> pack;
    for (int j = 0; j < lane_columns; ++j) from_float(values.at[j], pack.at[j]);
    if constexpr (together) {
      if (first < width) *reinterpret_cast<Pack<Number, lane_columns>*>(to + first) = pack;
    } else {
      for (int j = 0; j < lane_columns; ++j)
        if (first + j < width) to[first + j] = pack.at[j];
    }
  }
};

template <class Columns>
COMIGS_DEVICE Columns columns_of(int thread, int column_tile, int width) {
  return {column_tile * tile_columns + thread % warp_lanes * lane_columns, width};
}

// Up to four tokens of a warp's 32 that an expert is active for. Where there are fewer the first one stands
// in, with gate 0: it is computed, but adds nothing, and no load depends on a branch.
struct Group {
  int at[group_tokens];
  int count;
};

// group.at[t] without an index that is not a constant: the group stays in registers.
COMIGS_DEVICE inline int token_of(const Group& group, int t) {
  int token = group.at[0];
  COMIGS_UNROLL
  for (int i = 1; i < group_tokens; ++i)
    if (i == t) token = group.at[i];
  return token;
}

COMIGS_DEVICE inline int lowest_bit(std::uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __ffs(static_cast<int>(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

// Takes the next tokens off `waiting`, a bit a token; it has at least one.
COMIGS_DEVICE inline Group next_group(std::uint32_t& waiting) {
  Group group;
  group.count = 0;
  for (int t = 0; t < group_tokens; ++t) {
    group.at[t] = waiting == 0 ? group.at[0] : lowest_bit(waiting);
    group.count += waiting == 0 ? 0 : 1;
    waiting &= waiting - 1;
  }
  return group;
}

// The tokens of a warp that an expert is active for, a bit a token.
template <class Warp>
COMIGS_DEVICE std::uint32_t active_tokens(Warp& warp, const Sizes& sizes, const float* gate, int first_token,
                                          int expert) {
  static_assert(warp_tokens == warp_lanes);
  typename Warp::template Local<bool> active;
  warp.each([&](int thread) {
    const int token = first_token + thread % warp_lanes;
    active[thread] = token < sizes.tokens && gate[sizes.pair(token, expert)] != 0.0f;
  });
  return warp.ballot(active);
}

// Coefficients [n, E, R] of a group's tokens, as [R, 4 tokens] in the warp's memory.
COMIGS_DEVICE inline void stage(const Sizes& sizes, const float* coefficients, int first_token, int expert,
                                const Group& group, int thread, Four* to) {
  COMIGS_UNROLL_BY(1)
  for (int i = thread % warp_lanes; i < sizes.rank * group_tokens; i += warp_lanes) {
    const int token = first_token + token_of(group, i % group_tokens), r = i / group_tokens;
    to[r].at[i % group_tokens] = coefficients[sizes.coefficient(token, expert, r)];
  }
}

COMIGS_DEVICE inline void add_low_rank(const Four& coefficients, const Four& factor, GroupColumns& to) {
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t)
    for (int j = 0; j < lane_columns; ++j) to.of[t].at[j] += coefficients.at[t] * factor.at[j];
}

// products[t, r] = sum over columns of rows[t, column] factor[r, column], written for the tokens of the group
// to [n, E, R]. So many ranks at a time: more are halved better, fewer leave registers to others.
template <int ranks, class Warp, class Columns>
COMIGS_DEVICE void write_products(Warp& warp, const Sizes& sizes, int first_token, int expert,
                                  const Group& group, typename Warp::template Local<GroupColumns>& rows,
                                  const float* factor, Columns& columns, float* to) {
  constexpr int count = group_tokens * ranks;
  for (int first_rank = 0; first_rank < sizes.rank; first_rank += ranks) {
    typename Warp::template Local<Pack<float, count>> products;
    warp.each([&](int thread) {
      COMIGS_UNROLL
      for (int r = 0; r < ranks; ++r) {
        // Of a rank too many the last one stands in, and its sum is not written: no load depends on a branch.
        const int rank = first_rank + r < sizes.rank ? first_rank + r : sizes.rank - 1;
        const Four values = columns[thread].load(factor + sizes.factor(expert, rank));
        COMIGS_UNROLL
        for (int t = 0; t < group_tokens; ++t) {
          float product = 0.0f;
          for (int j = 0; j < lane_columns; ++j) product += rows[thread].of[t].at[j] * values.at[j];
          products[thread].at[t * ranks + r] = product;
        }
      }
    });
    sum_over_lanes<count>(warp, products);
    warp.each([&](int thread) {
      const int sum = thread % warp_lanes * count / warp_lanes, rank = first_rank + sum % ranks;
      if (thread * count % warp_lanes != 0 || sum / ranks >= group.count || rank >= sizes.rank) return;
      const int token = first_token + token_of(group, sum / ranks);
      to[sizes.coefficient(token, expert, rank)] = products[thread].at[0];
    });
  }
}

}  // namespace comigs::kernels
