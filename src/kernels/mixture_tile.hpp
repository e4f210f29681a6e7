// What both passes of the device's mixture share. A block has a tile of 128 tokens and 128 columns; each of
// its four warps has all columns of 32 of the tokens, a lane four columns of each. For an expert a warp takes
// the tokens that it is active for, four at a time: 16 numbers a lane, for which a load of four columns of a
// factor and one of four tokens' coefficients do 16 multiplications. Sums over experts stand in the block's
// memory, where a lane meets only its own columns. Where an activation is of two projections a tile has half
// the tokens and a window half the ranks, so that sums take as much memory and as many registers.
#pragma once

#include <cstdint>

#include "activation_point.hpp"
#include "block.hpp"
#include "comigs/kernels/mixture.hpp"

namespace comigs::kernels {

inline constexpr int lane_columns = 4, group_tokens = 4;
inline constexpr int tile_warps = 4, tile_threads = tile_warps * warp_lanes;
inline constexpr int tile_columns = warp_lanes * lane_columns;
template <int ups>
inline constexpr int window_ranks = 8 / ups;
template <int ups>
inline constexpr int warp_tokens = warp_lanes / ups;

COMIGS_HOST_DEVICE inline std::int64_t tile_tokens(std::int64_t ups) {
  return tile_warps * (warp_lanes / ups);
}

using Four = Pack<float, 4>;
/// Of each token of a group, the lane's columns.
struct GroupColumns {
  Four of[group_tokens];
};

// Where row `row` begins. Of numbers that are not negative the device multiplies and adds in one instruction.
COMIGS_HOST_DEVICE inline std::int64_t row_offset(int row, int width) {
  return static_cast<std::int64_t>(std::uint64_t{static_cast<std::uint32_t>(row)} *
                                   static_cast<std::uint32_t>(width));
}

// A shape in the numbers that the device multiplies fastest, and the places of its arrays.
// What belongs to an expert in an up projection has a slot of its own: slot s E + e in projection s.
struct Sizes {
  int tokens, inner, experts, rank;

  COMIGS_HOST_DEVICE explicit Sizes(const MixtureShape& shape)
      : tokens(static_cast<int>(shape.tokens)),
        inner(static_cast<int>(shape.inner)),
        experts(static_cast<int>(shape.experts)),
        rank(static_cast<int>(shape.rank)) {}

  COMIGS_HOST_DEVICE int slot(int s, int expert) const { return s * experts + expert; }

  /// In [n, E].
  COMIGS_HOST_DEVICE std::int64_t pair(int token, int expert) const {
    return row_offset(token, experts) + expert;
  }
  /// In [n, ups, E, R].
  COMIGS_HOST_DEVICE std::int64_t coefficient(int ups, int token, int slot, int r) const {
    return row_offset(token, ups * experts * rank) + (slot * rank + r);
  }
  /// The beginning of a row of [., E, R, F].
  COMIGS_HOST_DEVICE std::int64_t factor(int slot, int r) const { return row_offset(slot * rank + r, inner); }
  COMIGS_HOST_DEVICE std::int64_t pairs() const { return std::int64_t{tokens} * experts; }
  COMIGS_HOST_DEVICE std::int64_t coefficients(int ups) const { return pairs() * ups * rank; }
  COMIGS_HOST_DEVICE std::int64_t factors(int ups) const { return factor(ups * experts, 0); }
};

COMIGS_HOST_DEVICE inline std::int64_t tiles(std::int64_t count, std::int64_t tile) {
  return (count + tile - 1) / tile;
}

// The columns of a lane. `together`: all rows are aligned and of a width that lanes divide, so that a lane's
// columns are all there or none; known when it is compiled, because a branch would keep loads from
// overlapping.
template <bool together>
struct LaneColumns {
  int first, width;

  template <class Number>
  COMIGS_DEVICE Number* row(Number* rows, int token) const {
    return rows + row_offset(token, width);
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
template <int ups, class Warp>
COMIGS_DEVICE std::uint32_t active_tokens(Warp& warp, const Sizes& sizes, const float* gate, int first_token,
                                          int expert) {
  static_assert(warp_tokens<ups> <= warp_lanes);
  typename Warp::template Local<bool> active;
  warp.each([&](int thread) {
    const int lane = thread % warp_lanes, token = first_token + lane;
    active[thread] =
        lane < warp_tokens<ups> && token < sizes.tokens && gate[sizes.pair(token, expert)] != 0.0f;
  });
  return warp.ballot(active);
}

// Coefficients [n, ups, E, R] of a group's tokens, as [R, 4 tokens] in the warp's memory.
template <int ups>
COMIGS_DEVICE void stage(const Sizes& sizes, const float* coefficients, int first_token, int slot,
                         const Group& group, int thread, Four* to) {
  COMIGS_UNROLL_BY(1)
  for (int i = thread % warp_lanes; i < sizes.rank * group_tokens; i += warp_lanes) {
    const int token = first_token + token_of(group, i % group_tokens), r = i / group_tokens;
    to[r].at[i % group_tokens] = coefficients[sizes.coefficient(ups, token, slot, r)];
  }
}

COMIGS_DEVICE inline void add_low_rank(const Four& coefficients, const Four& factor, GroupColumns& to) {
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t)
    for (int j = 0; j < lane_columns; ++j) to.of[t].at[j] += coefficients.at[t] * factor.at[j];
}

// products[t, r] = sum over columns of rows[t, column] factor[r, column], written for the tokens of the group
// to [n, ups, E, R]. So many ranks at a time: more are halved better, fewer leave registers to others.
template <int ranks, int ups, class Warp, class Columns>
COMIGS_DEVICE void write_products(Warp& warp, const Sizes& sizes, int first_token, int slot,
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
        const Four values = columns[thread].load(factor + sizes.factor(slot, rank));
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
      to[sizes.coefficient(ups, token, slot, rank)] = products[thread].at[0];
    });
  }
}

}  // namespace comigs::kernels
