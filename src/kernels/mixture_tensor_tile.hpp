// What both passes of the device's mixture by tensor cores share: for bfloat16 and ranks up to 16. Tile, sums
// and workspace are those of mixture_tile.hpp, but a warp has 32 of the tile's columns and all of its tokens,
// of which it takes eight at a time that an expert is active for. What a lane holds of them, four columns of
// two tokens, is what a product of tensor cores leaves with it: z += B u has columns as rows and tokens as
// columns. As it is, it is the left operand of sums over tokens (d_up_B, d_down_A); transposed by the warp,
// the right one of sums over columns (weighted, d_reduced). Operands are rounded to bfloat16, sums are
// float32.
//
// Lane 4 g + q of a warp has columns 4 g to 4 g + 3, and tokens 2 q and 2 q + 1 of the eight. A product has
// 16 rows: row g of product j is column 4 g + 2 j, row g + 8 column 4 g + 2 j + 1.
#pragma once

#include "mixture_tile.hpp"

namespace comigs::kernels {

/// So many times eight ranks.
template <int eights>
struct ByTensorCores {
  using Columns = LaneColumns<true>;
  static constexpr int rank_eights = eights;
};

inline constexpr int octet = 8;           // tokens of a group, ranks of a product
inline constexpr int chunk = warp_lanes;  // tokens that a warp looks over at once
inline constexpr int warp_columns = tile_columns / tile_warps, row_packs = warp_columns / lane_columns;
inline constexpr int tile_rows = tile_warps * warp_lanes;  // tokens of a tile, of each projection
inline constexpr int column_pairs = lane_columns / 2;

/// A lane's part of an operand of 16 rows and 8 columns; of one of 8 rows and 8 columns it is a
/// std::uint32_t.
using Left = Pack<std::uint32_t, 2>;

// Of two tokens, or of two ranks, the lane's columns, as products leave them.
struct TwoRows {
  Four of[column_pairs];
};
COMIGS_DEVICE inline float& number(TwoRows& rows, int row, int column) {
  return rows.of[column / 2].at[column % 2 * 2 + row];
}
// A column of both.
COMIGS_DEVICE inline std::uint32_t rounded(TwoRows& rows, int column) {
  return two_bfloat16(number(rows, 0, column), number(rows, 1, column));
}

// Memory
// ------------------------------------------------------------------------------------------------------------

// What a warp leaves to the block of each token: S R numbers and its gate's.
COMIGS_HOST_DEVICE inline int products_of_token(std::int64_t ups, std::int64_t rank) {
  return static_cast<int>(ups * rank + 1);
}

// A token of a chunk, and its gate.
struct alignas(8) Active {
  int token;
  float share;
};

template <int eights>
std::int64_t memory_bytes(ByTensorCores<eights> /*way*/, const MixtureShape& shape) {
  const std::size_t of_warp = tile_rows * row_packs * sizeof(Four) +
                              chunk * products_of_token(shape.ups(), shape.rank) * sizeof(float) +
                              chunk * sizeof(Active);
  return static_cast<std::int64_t>(tile_warps * of_warp);
}

struct TensorMemory {
  Four* sums;       // [128 rows, 8 packs of the warp's columns]: over experts
  float* products;  // [32, S R + 1], of the tokens in `active`: over the warp's columns
  Active* active;   // [32]: those of a chunk's tokens that the expert is active for, in order
};

COMIGS_DEVICE inline TensorMemory tensor_memory(float* block_memory, int ups, const Sizes& sizes, int warp) {
  const int products = chunk * products_of_token(ups, sizes.rank);
  Four* const sums = reinterpret_cast<Four*>(block_memory);
  float* const all_products = reinterpret_cast<float*>(sums + tile_warps * tile_rows * row_packs);
  Active* const all_active = reinterpret_cast<Active*>(all_products + tile_warps * products);
  return {sums + warp * tile_rows * row_packs, all_products + warp * products, all_active + warp * chunk};
}

// Rows that lanes reach for together lie in different banks.
COMIGS_DEVICE inline Four& sum_at(Four* sums, int row, int pack) {
  return sums[row * row_packs + (pack ^ (row & (row_packs - 1)))];
}

template <class Columns>
COMIGS_DEVICE Columns tensor_columns(int thread, int column_tile, int pack, int width) {
  return {column_tile * tile_columns + thread / warp_lanes * warp_columns + pack * lane_columns, width};
}

template <class Block, class Pass>
COMIGS_DEVICE void begin_tile(Block& block, const Pass& pass, int column_tile,
                              typename Block::template Local<typename Pass::Columns>& columns) {
  const Sizes sizes(pass.in.shape);
  block.phase([&](int thread) {
    const int lane = thread % warp_lanes;
    columns[thread] = tensor_columns<typename Pass::Columns>(thread, column_tile, lane / 4, sizes.inner);
    Four* const sums = tensor_memory(block.memory(), Pass::Act::ups, sizes, thread / warp_lanes).sums;
    for (int i = lane; i < tile_rows * row_packs; i += warp_lanes) sums[i] = Four{};
  });
}

// The sums over experts of so many projections, to [projections n, F].
template <class Block, class Pass, class Number>
COMIGS_DEVICE void store_tile(Block& block, const Pass& pass, int column_tile, int first_token,
                              int projections, Number* to) {
  constexpr int ups = Pass::Act::ups, tokens = tile_rows / ups;
  const Sizes sizes(pass.in.shape);
  block.phase([&](int thread) {  // of a part the next tile begins with sums of 0
    const int lane = thread % warp_lanes, pack = lane % row_packs;
    const auto columns = tensor_columns<typename Pass::Columns>(thread, column_tile, pack, sizes.inner);
    Four* const sums = tensor_memory(block.memory(), ups, sizes, thread / warp_lanes).sums;
    for (int row = lane / row_packs; row < tokens * projections; row += warp_lanes / row_packs) {
      const int token = first_token + row % tokens;
      if (token < sizes.tokens)
        columns.store(sum_at(sums, row, pack), columns.row(to, row / tokens * sizes.tokens + token));
    }
  });
}

// Operands
// ----------------------------------------------------------------------------------------------------------

// [16 columns, 8 ranks] for each product: the lane's columns of ranks first_rank + 2 q and the next.
struct ByColumn {
  Left of[column_pairs];
};

template <class Columns>
COMIGS_DEVICE ByColumn load_by_column(const Columns& columns, const Sizes& sizes, const float* factor,
                                      int slot, int first_rank, int thread) {
  TwoRows rows{};
  COMIGS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int r = first_rank + thread % 4 * 2 + i;
    if (r >= sizes.rank) continue;
    const Four row = columns.load(factor + sizes.factor(slot, r));
    COMIGS_UNROLL
    for (int c = 0; c < lane_columns; ++c) number(rows, i, c) = row.at[c];
  }
  ByColumn by;
  COMIGS_UNROLL
  for (int c = 0; c < lane_columns; ++c) by.of[c / 2].at[c % 2] = rounded(rows, c);
  return by;
}

// [16 ranks, 8 columns]: of[c] has every fourth of the warp's columns, from its column c on.
struct ByRank {
  Left of[lane_columns];
};

template <int eights, class Columns>
COMIGS_DEVICE ByRank load_by_rank(const Columns& columns, const Sizes& sizes, const float* factor, int slot,
                                  int thread) {
  const int lane = thread % warp_lanes, first = columns.first + (lane % 4 * 2 - lane / 4) * lane_columns;
  ByRank by{};
  COMIGS_UNROLL
  for (int k = 0; k < eights; ++k) {
    const int r = octet * k + lane / 4;
    if (r >= sizes.rank) continue;
    const float* const row = factor + sizes.factor(slot, r);
    const Four even = Columns{first, columns.width}.load(row),
               odd = Columns{first + lane_columns, columns.width}.load(row);
    COMIGS_UNROLL
    for (int c = 0; c < lane_columns; ++c) by.of[c].at[k] = two_bfloat16(even.at[c], odd.at[c]);
  }
  return by;
}

// Where a warp stands.
struct Chunk {
  int first_token, first_row, expert;
};

// Eight tokens at a time: from place `position` on in the list of `count` active ones.
struct Octet {
  int token[2], row[2];  ///< the lane's two: of all, of the tile
  float share[2];        ///< their gates; 0 where the first of the list stands in, as there are no more
  int across;            ///< token g of the eight
};

COMIGS_DEVICE inline Octet octet_at(const Chunk& at, int position, int count, int thread,
                                    const Active* active) {
  const int lane = thread % warp_lanes, across = position + lane / 4;
  Octet group;
  COMIGS_UNROLL
  for (int t = 0; t < 2; ++t) {
    const int place = position + lane % 4 * 2 + t;
    const Active own = active[place < count ? place : 0];
    group.token[t] = at.first_token + own.token;
    group.row[t] = at.first_row + own.token;
    group.share[t] = place < count ? own.share : 0.0f;
  }
  group.across = at.first_token + active[across < count ? across : 0].token;
  return group;
}

// [8 ranks, 8 tokens] of coefficients [n, ups, E, R], for each eight ranks: those of token g.
template <int ups, int eights>
struct Coefficients {
  std::uint32_t of[ups][eights];
};

template <int ups, int eights>
COMIGS_DEVICE Coefficients<ups, eights> load_coefficients(const Sizes& sizes, const float* coefficients,
                                                          int expert, int token, int thread) {
  Coefficients<ups, eights> loaded;
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s)
    for (int k = 0; k < eights; ++k) {
      const int r = octet * k + thread % 4 * 2;
      const float* const of = coefficients + sizes.coefficient(ups, token, sizes.slot(s, expert), 0);
      loaded.of[s][k] = two_bfloat16(r < sizes.rank ? of[r] : 0.0f, r + 1 < sizes.rank ? of[r + 1] : 0.0f);
    }
  return loaded;
}

template <class Columns, class Number>
COMIGS_DEVICE TwoRows load_tokens(const Columns& columns, const Octet& group, const Number* rows) {
  TwoRows loaded;
  COMIGS_UNROLL
  for (int t = 0; t < 2; ++t) {
    const Four row = columns.load(columns.row(rows, group.token[t]));
    COMIGS_UNROLL
    for (int c = 0; c < lane_columns; ++c) number(loaded, t, c) = row.at[c];
  }
  return loaded;
}

// Writes down which of a chunk's tokens the expert is active for, and says how many.
template <class Warp>
COMIGS_DEVICE int list_active(Warp& warp, const Sizes& sizes, const float* gate, const Chunk& at,
                              Active* list) {
  typename Warp::template Local<float> share;
  typename Warp::template Local<bool> active;
  warp.each([&](int thread) {
    const int token = at.first_token + thread % warp_lanes;
    share[thread] = token < sizes.tokens ? gate[sizes.pair(token, at.expert)] : 0.0f;
    active[thread] = share[thread] != 0.0f;
  });
  const std::uint32_t bits = warp.ballot(active);
  warp.phase([&](int thread) {
    const int lane = thread % warp_lanes;
    if (active[thread]) list[count_bits(bits & ((std::uint32_t{1} << lane) - 1))] = {lane, share[thread]};
  });
  return count_bits(bits);
}

// Sums
// --------------------------------------------------------------------------------------------------------------

// rows[columns, 8 tokens] += factor[columns, 8 ranks] coefficients[8 ranks, 8 tokens]. As in the next two, an
// operand is a function of the thread.
template <class Warp, class Rows, class Factor, class Right>
COMIGS_DEVICE void add_over_ranks(Warp& warp, const Rows& rows, const Factor& factor,
                                  const Right& coefficients) {
  COMIGS_UNROLL
  for (int j = 0; j < column_pairs; ++j)
    warp.multiply_add([&](int thread) -> Four& { return rows(thread).of[j]; },
                      [&](int thread) -> Left { return factor(thread).of[j]; }, coefficients);
}

// sum[16 ranks, 8 tokens] += factor[16 ranks, columns] rows[columns, 8 tokens].
template <class Warp, class Sum, class Factor, class Rows>
COMIGS_DEVICE void add_over_columns(Warp& warp, const Sum& sum, const Factor& factor, const Rows& rows) {
  COMIGS_UNROLL
  for (int c = 0; c < lane_columns; ++c) {
    typename Warp::template Local<std::uint32_t> across;
    warp.transpose([&](int thread) { return rounded(rows(thread), c); }, across);
    warp.multiply_add(
        sum, [&](int thread) -> Left { return factor(thread).of[c]; },
        [&](int thread) { return across[thread]; });
  }
}

// sum[columns, 8 ranks] += rows[columns, 8 tokens] coefficients[8 ranks, 8 tokens]^T.
template <class Warp, class Sum, class Rows, class Right>
COMIGS_DEVICE void add_over_tokens(Warp& warp, const Sum& sum, const Rows& rows, const Right& coefficients) {
  typename Warp::template Local<std::uint32_t> across;
  warp.transpose(coefficients, across);
  COMIGS_UNROLL
  for (int j = 0; j < column_pairs; ++j)
    warp.multiply_add([&](int thread) -> Four& { return sum(thread).of[j]; },
                      [&](int thread) -> Left {
                        return {{rounded(rows(thread), 2 * j), rounded(rows(thread), 2 * j + 1)}};
                      },
                      [&](int thread) { return across[thread]; });
}

// Not of a token that stands in: another lane adds to its row.
COMIGS_DEVICE inline void add_to_sums(TwoRows& rows, const Octet& group, int first_row, int thread,
                                      Four* sums) {
  COMIGS_UNROLL
  for (int t = 0; t < 2; ++t) {
    if (group.share[t] == 0.0f) continue;
    Four& sum = sum_at(sums, first_row + group.row[t], thread % warp_lanes / 4);
    Four added = sum;
    COMIGS_UNROLL
    for (int c = 0; c < lane_columns; ++c) added.at[c] += number(rows, t, c);
    sum = added;
  }
}

// Leaves sum[16 ranks, 8 tokens] to the block, behind the first numbers of each token.
COMIGS_DEVICE inline void leave_products(const Four& sum, const Sizes& sizes, int ups, int behind,
                                         int position, int count, int thread, const TensorMemory& memory) {
  const int lane = thread % warp_lanes, of_token = products_of_token(ups, sizes.rank);
  COMIGS_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int r = lane / 4 + i / 2 * octet, place = position + lane % 4 * 2 + i % 2;
    if (r < sizes.rank && place < count) memory.products[place * of_token + behind + r] = sum.at[i];
  }
}

// Number i of the token at a place, over the warps in order; `first`: the first warp's memory.
COMIGS_DEVICE inline float sum_of_warps(const TensorMemory& first, int ups, const Sizes& sizes, int place,
                                        int i) {
  const int of_token = products_of_token(ups, sizes.rank);
  float sum = 0.0f;
  COMIGS_UNROLL
  for (int warp = 0; warp < tile_warps; ++warp) sum += first.products[(warp * chunk + place) * of_token + i];
  return sum;
}

// Four threads to a token of the list: visit(place, token, i) for the first of each one's numbers.
template <class Block, class Visit>
COMIGS_DEVICE void each_active(Block& block, int first_token, typename Block::template Local<int>& count,
                               const TensorMemory& first, const Visit& visit) {
  static_assert(Block::threads == 4 * chunk);
  block.phase([&](int thread) {
    const int place = thread / 4;
    if (place < count[thread]) visit(place, first_token + first.active[place].token, thread % 4);
  });
}

}  // namespace comigs::kernels
