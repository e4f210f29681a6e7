// The device's mixture: sums over columns are made a tile of columns at a time, those over tokens a part of
// the tokens at a time, in workspace; then each sum is taken in order. So the bits are the same at every run.
#pragma once

#include "mixture_tile.hpp"

namespace comigs::kernels {

template <bool together>
struct ByLanes {
  using Columns = LaneColumns<together>;
};

// How a tile is worked through, W: by lanes alone (ByLanes) or by tensor cores (mixture_tensor.hpp).
template <class Number, class A, class W>
struct ForwardPass {
  using Act = A;
  using Way = W;
  using Columns = typename W::Columns;

  MixtureInputs<Number> in;
  MixtureOutputs<Number> out;
  float* weighted_of_tile;  ///< [column tiles, n, E, R], where an expert is active
};

template <class Number, class A, class W>
struct BackwardPass {
  using Act = A;
  using Way = W;
  using Columns = typename W::Columns;

  MixtureInputs<Number> in;
  MixtureGradients<Number> g;
  float* reduced_of_tile;  ///< [column tiles, n, S, E, R], where an expert is active
  float* gate_of_tile;     ///< [column tiles, n, E], where an expert is active
  float* up_B_of_part;     ///< [parts, S, E, R, F]
  float* down_A_of_part;   ///< [parts, E, R, F]
  std::int64_t parts;
};

// A warp's place in its block's memory.
struct WarpMemory {
  Four* sums;    // [32 tokens, or 16 for each of two projections, lanes]: over experts
  Four* staged;  // [S + 1, R]: coefficients of four tokens, of each projection and of what goes down
};

COMIGS_HOST_DEVICE inline std::int64_t sums_of_warp() { return warp_lanes * warp_lanes; }
COMIGS_HOST_DEVICE inline std::int64_t staged_of_warp(std::int64_t ups, std::int64_t rank) {
  return (ups + 1) * rank;
}

// What a block has as its memory.
template <bool together>
std::int64_t memory_bytes(ByLanes<together> /*way*/, const MixtureShape& shape) {
  const std::int64_t exchanged = (shape.ups() + 1) * (window_ranks<1> / shape.ups()) * warp_lanes;
  const std::int64_t fours =
      tile_warps * (sums_of_warp() + staged_of_warp(shape.ups(), shape.rank)) + exchanged;
  return fours * static_cast<std::int64_t>(sizeof(Four));
}

template <int ups>
COMIGS_DEVICE WarpMemory memory_of(float* block_memory, const Sizes& sizes, int warp) {
  Four* sums = reinterpret_cast<Four*>(block_memory);
  Four* staged = sums + tile_warps * sums_of_warp();
  return {sums + warp * sums_of_warp(), staged + warp * staged_of_warp(ups, sizes.rank)};
}

template <int ups>
COMIGS_DEVICE Four* exchange_memory(float* block_memory, const Sizes& sizes) {
  return reinterpret_cast<Four*>(block_memory) +
         tile_warps * (sums_of_warp() + staged_of_warp(ups, sizes.rank));
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
  for (int i = 0; i < warp_lanes; ++i) sums[i * warp_lanes + thread % warp_lanes] = Four{};
}

template <int ups, class Columns, class Number>
COMIGS_DEVICE void store_sums(const Columns& columns, int thread, const Four* sums, int first_token,
                              int tokens, Number* to) {
  for (int i = 0; i < warp_tokens<ups> && first_token + i < tokens; ++i)
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

// Of each projection, the lane's columns of a group.
template <int ups>
struct UpColumns {
  GroupColumns of[ups];
};

template <class Act>
COMIGS_DEVICE ActivationPoint<Act::ups> point_of(const UpColumns<Act::ups>& z, int t, int j) {
  float at[Act::ups];
  COMIGS_UNROLL
  for (int s = 0; s < Act::ups; ++s) at[s] = z.of[s].of[t].at[j];
  return Act::at(at);
}

template <class Warp, class Pass>
COMIGS_DEVICE void forward_group(Warp& warp, const Pass& pass, int column_tile, int first_token, int expert,
                                 const Group& group, const WarpMemory& memory,
                                 typename Warp::template Local<typename Pass::Columns>& columns) {
  using Act = typename Pass::Act;
  constexpr int ups = Act::ups;
  const Sizes sizes(pass.in.shape);
  typename Warp::template Local<UpColumns<ups>> hidden;
  typename Warp::template Local<GroupColumns> activation;
  typename Warp::template Local<Four> share;
  warp.phase([&](int thread) {
    share[thread] = shares(sizes, pass.in.gate, first_token, expert, group);
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s) {
      load_group(columns[thread], group, s * sizes.tokens + first_token, pass.in.hidden,
                 hidden[thread].of[s]);
      stage<ups>(sizes, pass.in.reduced, first_token, sizes.slot(s, expert), group, thread,
                 memory.staged + s * sizes.rank);
    }
  });
  warp.phase([&](int thread) {
    UpColumns<ups>& z = hidden[thread];
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s) {
      const float* factor = pass.in.up_B + sizes.factor(sizes.slot(s, expert), 0);
      COMIGS_UNROLL_BY(4)
      for (int r = 0; r < sizes.rank; ++r, factor += sizes.inner)
        add_low_rank(memory.staged[s * sizes.rank + r], columns[thread].load(factor), z.of[s]);
    }
    COMIGS_UNROLL
    for (int t = 0; t < group_tokens; ++t)
      for (int j = 0; j < lane_columns; ++j)
        activation[thread].of[t].at[j] = share[thread].at[t] * point_of<Act>(z, t, j).value;
    add_to_sums(activation[thread], group, thread, memory.sums);
  });
  write_products<8, 1>(warp, sizes, first_token, expert, group, activation, pass.in.down_A, columns,
                       pass.weighted_of_tile + column_tile * sizes.coefficients(1));
}

// One tile of `mixed`, and its columns' part of `weighted`.
template <class Block, class Pass>
COMIGS_DEVICE void mixture_forward_tile(Block& block, const Pass& pass, int column_tile, int token_tile) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  block.each_warp([&](auto& warp) {
    const WarpMemory memory = memory_of<ups>(block.memory(), sizes, warp.index());
    const int first_token = (token_tile * tile_warps + warp.index()) * warp_tokens<ups>;
    typename Block::template Local<typename Pass::Columns> columns;
    warp.each([&](int thread) {
      columns[thread] = columns_of<typename Pass::Columns>(thread, column_tile, sizes.inner);
      clear_sums(thread, memory.sums);
    });
    for (int expert = 0; expert < sizes.experts; ++expert) {
      std::uint32_t waiting = active_tokens<ups>(warp, sizes, pass.in.gate, first_token, expert);
      while (waiting != 0)
        forward_group(warp, pass, column_tile, first_token, expert, next_group(waiting), memory, columns);
    }
    warp.each([&](int thread) {
      store_sums<ups>(columns[thread], thread, memory.sums, first_token, sizes.tokens, pass.out.mixed);
    });
  });
}

// Backward
// ----------------------------------------------------------------------------------------------------------

// What a lane sums over its warp's tokens, for a window of ranks.
template <int ups>
struct FactorSums {
  Four up_B[ups][window_ranks<ups>], down_A[window_ranks<ups>];
};

// coefficients[r, t] rows[t, column], summed over the group's tokens, for the ranks of a window.
template <int window>
COMIGS_DEVICE void add_outer(const Four* coefficients, int first_rank, int rank, const GroupColumns& rows,
                             Four (&to)[window]) {
  COMIGS_UNROLL
  for (int r = 0; r < window; ++r) {
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

// Turns the lane's columns of `d_activation` (d_mixed) into those of the activations times their gate, those
// of `z` (hidden) into d_z, and the gates into what the lane adds to their gradients; adds to the sums over
// experts and over tokens.
template <class Pass>
COMIGS_DEVICE void backward_lane(const Pass& pass, const Step& at, const Group& group,
                                 const WarpMemory& memory, const typename Pass::Columns& columns, int thread,
                                 UpColumns<Pass::Act::ups>& z, GroupColumns& d_activation, Four& gate,
                                 FactorSums<Pass::Act::ups>& sums) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  const Four* d_weighted = memory.staged + ups * sizes.rank;
  for (int r = 0; r < sizes.rank; ++r) {
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s)
      add_low_rank(memory.staged[s * sizes.rank + r],
                   columns.load(pass.in.up_B + sizes.factor(sizes.slot(s, at.expert), r)), z.of[s]);
    add_low_rank(d_weighted[r], columns.load(pass.in.down_A + sizes.factor(at.expert, r)), d_activation);
  }
  const Four share = gate;
  gate = Four{};
  COMIGS_UNROLL
  for (int t = 0; t < group_tokens; ++t)
    for (int j = 0; j < lane_columns; ++j) {
      const ActivationPoint<ups> a = point_of<typename Pass::Act>(z, t, j);
      float& d = d_activation.of[t].at[j];
      gate.at[t] += d * a.value;
      COMIGS_UNROLL
      for (int s = 0; s < ups; ++s) z.of[s].of[t].at[j] = d * (share.at[t] * a.slope[s]);
      d = share.at[t] * a.value;
    }
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s) {
    if (at.first_rank == 0)
      add_to_sums(z.of[s], group, thread, memory.sums + s * warp_tokens<ups> * warp_lanes);
    if (pass.g.d_up_B != nullptr)
      add_outer(memory.staged + s * sizes.rank, at.first_rank, sizes.rank, z.of[s], sums.up_B[s]);
  }
  if (pass.g.d_down_A != nullptr) add_outer(d_weighted, at.first_rank, sizes.rank, d_activation, sums.down_A);
}

template <class Warp, class Pass>
COMIGS_DEVICE void backward_group(Warp& warp, const Pass& pass, const Step& at, const Group& group,
                                  const WarpMemory& memory,
                                  typename Warp::template Local<typename Pass::Columns>& columns,
                                  typename Warp::template Local<FactorSums<Pass::Act::ups>>& sums) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  typename Warp::template Local<UpColumns<ups>> z;
  typename Warp::template Local<GroupColumns> d_activation;
  typename Warp::template Local<Four> gate;
  warp.phase([&](int thread) {
    gate[thread] = shares(sizes, pass.in.gate, at.first_token, at.expert, group);
    load_group(columns[thread], group, at.first_token, pass.g.d_mixed, d_activation[thread]);
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s) {
      load_group(columns[thread], group, s * sizes.tokens + at.first_token, pass.in.hidden, z[thread].of[s]);
      stage<ups>(sizes, pass.in.reduced, at.first_token, sizes.slot(s, at.expert), group, thread,
                 memory.staged + s * sizes.rank);
    }
    stage<1>(sizes, pass.g.d_weighted, at.first_token, at.expert, group, thread,
             memory.staged + ups * sizes.rank);
  });
  warp.phase([&](int thread) {
    backward_lane(pass, at, group, memory, columns[thread], thread, z[thread], d_activation[thread],
                  gate[thread], sums[thread]);
  });
  if (at.first_rank > 0) return;
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s) {
    typename Warp::template Local<GroupColumns> d_z;
    warp.each([&](int thread) { d_z[thread] = z[thread].of[s]; });
    write_products<4, ups>(warp, sizes, at.first_token, sizes.slot(s, at.expert), group, d_z, pass.in.up_B,
                           columns, pass.reduced_of_tile + at.column_tile * sizes.coefficients(ups));
  }
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
                               typename Block::template Local<FactorSums<Pass::Act::ups>>& sums) {
  constexpr int ups = Pass::Act::ups, window = window_ranks<ups>;
  const Sizes sizes(pass.in.shape);
  Four* together = exchange_memory<ups>(block.memory(), sizes);  // [S + 1, window, lanes]
  for (int warp = 0; warp < tile_warps; ++warp)
    block.phase([&](int thread) {
      if (thread / warp_lanes != warp) return;
      const auto add = [&](const Four& own, Four& to) {
        for (int j = 0; j < lane_columns; ++j) to.at[j] = (warp == 0 ? 0.0f : to.at[j]) + own.at[j];
      };
      COMIGS_UNROLL
      for (int r = 0; r < window; ++r) {
        Four* const to = together + r * warp_lanes + thread % warp_lanes;
        COMIGS_UNROLL
        for (int s = 0; s < ups; ++s) add(sums[thread].up_B[s][r], to[s * window * warp_lanes]);
        add(sums[thread].down_A[r], to[ups * window * warp_lanes]);
      }
    });
  block.phase([&](int thread) {
    const auto add = [&](float* factors, int slot, const Four* added) {
      for (int r = thread / warp_lanes; r < window && at.first_rank + r < sizes.rank; r += tile_warps) {
        float* to = factors + sizes.factor(slot, at.first_rank + r);
        Four sum = first ? Four{} : columns[thread].load(to);
        for (int j = 0; j < lane_columns; ++j) sum.at[j] += added[r * warp_lanes + thread % warp_lanes].at[j];
        columns[thread].store(sum, to);
      }
    };
    for (int s = 0; s < ups && pass.g.d_up_B != nullptr; ++s)
      add(pass.up_B_of_part + part * sizes.factors(ups), sizes.slot(s, at.expert),
          together + s * window * warp_lanes);
    if (pass.g.d_down_A != nullptr)
      add(pass.down_A_of_part + part * sizes.factors(1), at.expert, together + ups * window * warp_lanes);
  });
}

// One tile of d_hidden, its columns' part of d_reduced and d_gate, and its tokens' part of d_up_B and
// d_down_A.
template <class Block, class Pass>
COMIGS_DEVICE void mixture_backward_tile(Block& block, const Pass& pass, int column_tile, int token_tile,
                                         int part, bool first) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  const bool factors = pass.g.d_up_B != nullptr || pass.g.d_down_A != nullptr;
  typename Block::template Local<typename Pass::Columns> columns;
  typename Block::template Local<FactorSums<ups>> sums;
  const auto first_token = [&](int warp) { return (token_tile * tile_warps + warp) * warp_tokens<ups>; };
  block.each([&](int thread) {
    columns[thread] = columns_of<typename Pass::Columns>(thread, column_tile, sizes.inner);
    clear_sums(thread, memory_of<ups>(block.memory(), sizes, thread / warp_lanes).sums);
  });
  for (int rank = 0; rank == 0 || (factors && rank < sizes.rank); rank += window_ranks<ups>)
    for (int expert = 0; expert < sizes.experts; ++expert) {
      block.each([&](int thread) { sums[thread] = FactorSums<ups>{}; });
      block.each_warp([&](auto& warp) {
        const Step at{column_tile, first_token(warp.index()), expert, rank};
        std::uint32_t waiting = active_tokens<ups>(warp, sizes, pass.in.gate, at.first_token, expert);
        while (waiting != 0)
          backward_group(warp, pass, at, next_group(waiting),
                         memory_of<ups>(block.memory(), sizes, warp.index()), columns, sums);
      });
      if (factors) add_to_part(block, pass, {column_tile, 0, expert, rank}, part, first, columns, sums);
    }
  block.each([&](int thread) {
    const int warp = thread / warp_lanes;
    const Four* own = memory_of<ups>(block.memory(), sizes, warp).sums;
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s)
      store_sums<ups>(columns[thread], thread, own + s * warp_tokens<ups> * warp_lanes, first_token(warp),
                      sizes.tokens, columns[thread].row(pass.g.d_hidden, s * sizes.tokens));
  });
}

// All tiles of a part of the tokens.
template <class Block, class Pass>
COMIGS_DEVICE void mixture_backward_part(Block& block, const Pass& pass, int column_tile, int part) {
  const std::int64_t count = tiles(pass.in.shape.tokens, tile_tokens(Pass::Act::ups));
  const auto begin = static_cast<int>(count * part / pass.parts);
  const auto end = static_cast<int>(count * (part + 1) / pass.parts);
  for (int tile = begin; tile < end; ++tile)
    mixture_backward_tile(block, pass, column_tile, tile, part, tile == begin);
}

}  // namespace comigs::kernels
