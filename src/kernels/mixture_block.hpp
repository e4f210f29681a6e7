// The device's mixture: sums over columns are made a tile of columns at a time, those over tokens a part of
// the tokens at a time, in workspace; then each sum is taken in order. So the bits are the same at every run.
#pragma once

#include "mixture_tile.hpp"

namespace comigs::kernels {

template <class Number, bool together>
struct ForwardPass {
  using Columns = LaneColumns<together>;

  MixtureInputs<Number> in;
  MixtureOutputs<Number> out;
  float* weighted_of_tile;  ///< [column tiles, n, E, R], where an expert is active
};

template <class Number, bool together>
struct BackwardPass {
  using Columns = LaneColumns<together>;

  MixtureInputs<Number> in;
  MixtureGradients<Number> g;
  float* reduced_of_tile;  ///< [column tiles, n, E, R], where an expert is active
  float* gate_of_tile;     ///< [column tiles, n, E], where an expert is active
  float* up_B_of_part;     ///< [parts, E, R, F]
  float* down_A_of_part;   ///< [parts, E, R, F]
  std::int64_t parts;
};

// A warp's place in its block's memory.
struct WarpMemory {
  Four* sums;    // [32 tokens, lanes]: over experts
  Four* staged;  // [2, R]: coefficients of four tokens
};

inline constexpr std::int64_t exchanged_fours = 2 * window_ranks * warp_lanes;

COMIGS_HOST_DEVICE inline std::int64_t memory_bytes(const MixtureShape& shape) {
  const std::int64_t fours = tile_warps * (warp_tokens * warp_lanes + 2 * shape.rank) + exchanged_fours;
  return fours * static_cast<std::int64_t>(sizeof(Four));
}

COMIGS_DEVICE inline WarpMemory memory_of(float* block_memory, const Sizes& sizes, int warp) {
  Four* sums = reinterpret_cast<Four*>(block_memory);
  Four* staged = sums + tile_warps * warp_tokens * warp_lanes;
  return {sums + warp * warp_tokens * warp_lanes, staged + warp * 2 * sizes.rank};
}

COMIGS_DEVICE inline Four* exchange_memory(float* block_memory, const Sizes& sizes) {
  return reinterpret_cast<Four*>(block_memory) + tile_warps * (warp_tokens * warp_lanes + 2 * sizes.rank);
}

COMIGS_DEVICE inline void add_to_sums(const GroupColumns& values, const Group& group, int thread,
                                      Four* sums) {
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t) {
    Four& sum = sums[group.at[t] * warp_lanes + thread % warp_lanes];
    Four added = sum;
    for (int j = 0; j < lane_columns; ++j) added.at[j] += values.of[t].at[j];
    sum = added;
  }
}

COMIGS_DEVICE inline void clear_sums(int thread, Four* sums) {
  for (int i = 0; i < warp_tokens; ++i) sums[i * warp_lanes + thread % warp_lanes] = Four{};
}

template <class Columns, class Number>
COMIGS_DEVICE void store_sums(const Columns& columns, int thread, const Four* sums, int first_token,
                              int tokens, Number* to) {
  for (int i = 0; i < warp_tokens && first_token + i < tokens; ++i)
    columns.store(sums[i * warp_lanes + thread % warp_lanes], columns.row(to, first_token + i));
}

template <class Columns, class Number>
COMIGS_DEVICE void load_group(const Columns& columns, const Group& group, int first_token, const Number* rows,
                              GroupColumns& to) {
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t)
    to.of[t] = columns.load(columns.row(rows, first_token + group.at[t]));
}

// The gates of a group's tokens, 0 for one that stands in.
COMIGS_DEVICE inline Four shares(const Sizes& sizes, const float* gate, int first_token, int expert,
                                 const Group& group) {
  Four of;
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t)
    of.at[t] = t < group.count ? gate[sizes.pair(first_token + group.at[t], expert)] : 0.0f;
  return of;
}

// Forward
// -----------------------------------------------------------------------------------------------------------

template <class Warp, class Pass>
COMIGS_DEVICE void forward_group(Warp& warp, const Pass& pass, int column_tile, int first_token, int expert,
                                 const Group& group, const WarpMemory& memory,
                                 typename Warp::template Local<typename Pass::Columns>& columns) {
  const Sizes sizes(pass.in.shape);
  typename Warp::template Local<GroupColumns> activation;
  typename Warp::template Local<Four> share;
  warp.phase([&](int thread) {
    share[thread] = shares(sizes, pass.in.gate, first_token, expert, group);
    load_group(columns[thread], group, first_token, pass.in.hidden, activation[thread]);
    stage(sizes, pass.in.reduced, first_token, expert, group, thread, memory.staged);
  });
  warp.phase([&](int thread) {
    GroupColumns& z = activation[thread];
    const float* factor = pass.in.up_B + sizes.factor(expert, 0);
    COMIGS_UNROLL_BY(4)
    for (int r = 0; r < sizes.rank; ++r, factor += sizes.inner)
      add_low_rank(memory.staged[r], columns[thread].load(factor), z);
    COMIGS_UNROLL
    for (int t = 0; t < group_tokens; ++t)
      for (float& number : z.of[t].at) number = share[thread].at[t] * gelu_point(number).value;
    add_to_sums(z, group, thread, memory.sums);
  });
  write_products<8>(warp, sizes, first_token, expert, group, activation, pass.in.down_A, columns,
                    pass.weighted_of_tile + column_tile * sizes.coefficients());
}

// One tile of `mixed`, and its columns' part of `weighted`.
template <class Block, class Pass>
COMIGS_DEVICE void mixture_forward_tile(Block& block, const Pass& pass, int column_tile, int token_tile) {
  const Sizes sizes(pass.in.shape);
  block.each_warp([&](auto& warp) {
    const WarpMemory memory = memory_of(block.memory(), sizes, warp.index());
    const int first_token = token_tile * tile_tokens + warp.index() * warp_tokens;
    typename Block::template Local<typename Pass::Columns> columns;
    warp.each([&](int thread) {
      columns[thread] = columns_of<typename Pass::Columns>(thread, column_tile, sizes.inner);
      clear_sums(thread, memory.sums);
    });
    for (int expert = 0; expert < sizes.experts; ++expert) {
      std::uint32_t waiting = active_tokens(warp, sizes, pass.in.gate, first_token, expert);
      while (waiting != 0)
        forward_group(warp, pass, column_tile, first_token, expert, next_group(waiting), memory, columns);
    }
    warp.each([&](int thread) {
      store_sums(columns[thread], thread, memory.sums, first_token, sizes.tokens, pass.out.mixed);
    });
  });
}

// Backward
// ----------------------------------------------------------------------------------------------------------

// What a lane sums over its warp's tokens, for a window of ranks.
struct FactorSums {
  Four up_B[window_ranks], down_A[window_ranks];
};

// coefficients[r, t] rows[t, column], summed over the group's tokens, for the ranks of a window.
COMIGS_DEVICE inline void add_outer(const Four* coefficients, int first_rank, int rank,
                                    const GroupColumns& rows, Four (&to)[window_ranks]) {
  COMIGS_UNROLL
  for (int r = 0; r < window_ranks; ++r) {
    if (first_rank + r >= rank) continue;
    const Four weights = coefficients[first_rank + r];
    COMIGS_UNROLL
    for (int t = 0; t < group_tokens; ++t)
      for (int j = 0; j < lane_columns; ++j) to[r].at[j] += weights.at[t] * rows.of[t].at[j];
  }
}

// Where a group stands: of which expert, and for which ranks the factors' sums are made. Only the first
// window makes what does not depend on it.
struct Step {
  int column_tile, first_token, expert, first_rank;
};

// Turns the lane's columns of `hidden` into those of the activations times their gate, those of d_mixed into
// d_z, and the gates into what the lane adds to their gradients; adds to the sums over experts and over
// tokens.
template <class Pass>
COMIGS_DEVICE void backward_lane(const Pass& pass, const Step& at, const Group& group,
                                 const WarpMemory& memory, const typename Pass::Columns& columns, int thread,
                                 GroupColumns& activation, GroupColumns& d_z, Four& gate, FactorSums& sums) {
  const Sizes sizes(pass.in.shape);
  const Four *u = memory.staged, *d_weighted = memory.staged + sizes.rank;
  const float* up_B = pass.in.up_B + sizes.factor(at.expert, 0);
  const float* down_A = pass.in.down_A + sizes.factor(at.expert, 0);
  for (int r = 0; r < sizes.rank; ++r, up_B += sizes.inner, down_A += sizes.inner) {
    add_low_rank(u[r], columns.load(up_B), activation);
    add_low_rank(d_weighted[r], columns.load(down_A), d_z);
  }
  const Four share = gate;
  gate = Four{};
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t)
    for (int j = 0; j < lane_columns; ++j) {
      const GeluPoint a = gelu_point(activation.of[t].at[j]);
      float& d = d_z.of[t].at[j];
      gate.at[t] += d * a.value;
      d *= share.at[t] * a.slope;
      activation.of[t].at[j] = share.at[t] * a.value;
    }
  if (at.first_rank == 0) add_to_sums(d_z, group, thread, memory.sums);
  if (pass.g.d_up_B != nullptr) add_outer(u, at.first_rank, sizes.rank, d_z, sums.up_B);
  if (pass.g.d_down_A != nullptr) add_outer(d_weighted, at.first_rank, sizes.rank, activation, sums.down_A);
}

template <class Warp, class Pass>
COMIGS_DEVICE void backward_group(Warp& warp, const Pass& pass, const Step& at, const Group& group,
                                  const WarpMemory& memory,
                                  typename Warp::template Local<typename Pass::Columns>& columns,
                                  typename Warp::template Local<FactorSums>& sums) {
  const Sizes sizes(pass.in.shape);
  typename Warp::template Local<GroupColumns> activation, d_z;
  typename Warp::template Local<Four> gate;
  warp.phase([&](int thread) {
    gate[thread] = shares(sizes, pass.in.gate, at.first_token, at.expert, group);
    load_group(columns[thread], group, at.first_token, pass.in.hidden, activation[thread]);
    load_group(columns[thread], group, at.first_token, pass.g.d_mixed, d_z[thread]);
    stage(sizes, pass.in.reduced, at.first_token, at.expert, group, thread, memory.staged);
    stage(sizes, pass.g.d_weighted, at.first_token, at.expert, group, thread, memory.staged + sizes.rank);
  });
  warp.phase([&](int thread) {
    backward_lane(pass, at, group, memory, columns[thread], thread, activation[thread], d_z[thread],
                  gate[thread], sums[thread]);
  });
  if (at.first_rank > 0) return;
  write_products<4>(warp, sizes, at.first_token, at.expert, group, d_z, pass.in.up_B, columns,
                    pass.reduced_of_tile + at.column_tile * sizes.coefficients());
  if (pass.g.d_gate == nullptr) return;
  sum_over_lanes<group_tokens>(warp, gate);
  warp.each([&](int thread) {
    const int t = thread % warp_lanes * group_tokens / warp_lanes;
    if (thread * group_tokens % warp_lanes != 0 || t >= group.count) return;
    const int token = at.first_token + token_of(group, t);
    pass.gate_of_tile[at.column_tile * sizes.pairs() + sizes.pair(token, at.expert)] = gate[thread].at[0];
  });
}

// Adds the warps' sums in order, and the result to what the part has so far.
template <class Block, class Pass>
COMIGS_DEVICE void add_to_part(Block& block, const Pass& pass, const Step& at, int part, bool first,
                               typename Block::template Local<typename Pass::Columns>& columns,
                               typename Block::template Local<FactorSums>& sums) {
  const Sizes sizes(pass.in.shape);
  Four* together = exchange_memory(block.memory(), sizes);  // [2, window, lanes]
  for (int warp = 0; warp < tile_warps; ++warp)
    block.phase([&](int thread) {
      if (thread / warp_lanes != warp) return;
      COMIGS_UNROLL
      for (int r = 0; r < window_ranks; ++r)
        for (int j = 0; j < lane_columns; ++j) {
          float& up_B = together[r * warp_lanes + thread % warp_lanes].at[j];
          float& down_A = together[(window_ranks + r) * warp_lanes + thread % warp_lanes].at[j];
          up_B = (warp == 0 ? 0.0f : up_B) + sums[thread].up_B[r].at[j];
          down_A = (warp == 0 ? 0.0f : down_A) + sums[thread].down_A[r].at[j];
        }
    });
  block.phase([&](int thread) {
    const auto add = [&](float* parts, const Four* added) {
      for (int r = thread / warp_lanes; r < window_ranks && at.first_rank + r < sizes.rank; r += tile_warps) {
        float* to = parts + part * sizes.factors() + sizes.factor(at.expert, at.first_rank + r);
        Four sum = first ? Four{} : columns[thread].load(to);
        for (int j = 0; j < lane_columns; ++j) sum.at[j] += added[r * warp_lanes + thread % warp_lanes].at[j];
        columns[thread].store(sum, to);
      }
    };
    if (pass.g.d_up_B != nullptr) add(pass.up_B_of_part, together);
    if (pass.g.d_down_A != nullptr) add(pass.down_A_of_part, together + window_ranks * warp_lanes);
  });
}

// One tile of d_hidden, its columns' part of d_reduced and d_gate, and its tokens' part of d_up_B and
// d_down_A.
template <class Block, class Pass>
COMIGS_DEVICE void mixture_backward_tile(Block& block, const Pass& pass, int column_tile, int token_tile,
                                         int part, bool first) {
  const Sizes sizes(pass.in.shape);
  const bool factors = pass.g.d_up_B != nullptr || pass.g.d_down_A != nullptr;
  typename Block::template Local<typename Pass::Columns> columns;
  typename Block::template Local<FactorSums> sums;
  const auto first_token = [&](int warp) { return token_tile * tile_tokens + warp * warp_tokens; };
  block.each([&](int thread) {
    columns[thread] = columns_of<typename Pass::Columns>(thread, column_tile, sizes.inner);
    clear_sums(thread, memory_of(block.memory(), sizes, thread / warp_lanes).sums);
  });
  for (int rank = 0; rank == 0 || (factors && rank < sizes.rank); rank += window_ranks)
    for (int expert = 0; expert < sizes.experts; ++expert) {
      block.each([&](int thread) { sums[thread] = FactorSums{}; });
      block.each_warp([&](auto& warp) {
        const Step at{column_tile, first_token(warp.index()), expert, rank};
        std::uint32_t waiting = active_tokens(warp, sizes, pass.in.gate, at.first_token, expert);
        while (waiting != 0)
          backward_group(warp, pass, at, next_group(waiting), memory_of(block.memory(), sizes, warp.index()),
                         columns, sums);
      });
      if (factors) add_to_part(block, pass, {column_tile, 0, expert, rank}, part, first, columns, sums);
    }
  block.each([&](int thread) {
    const int warp = thread / warp_lanes;
    store_sums(columns[thread], thread, memory_of(block.memory(), sizes, warp).sums, first_token(warp),
               sizes.tokens, pass.g.d_hidden);
  });
}

// All tiles of a part of the tokens.
template <class Block, class Pass>
COMIGS_DEVICE void mixture_backward_part(Block& block, const Pass& pass, int column_tile, int part) {
  const std::int64_t count = tiles(pass.in.shape.tokens, tile_tokens);
  const auto begin = static_cast<int>(count * part / pass.parts);
  const auto end = static_cast<int>(count * (part + 1) / pass.parts);
  for (int tile = begin; tile < end; ++tile)
    mixture_backward_tile(block, pass, column_tile, tile, part, tile == begin);
}

}  // namespace comigs::kernels
