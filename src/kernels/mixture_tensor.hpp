// The two passes of the device's mixture by tensor cores: a tile of each (mixture_tensor_tile.hpp).
#pragma once

#include "mixture_block.hpp"
#include "mixture_tensor_tile.hpp"

namespace comigs::kernels {

// Of each projection, the lane's columns of two tokens.
template <int ups>
struct TwoRowsUp {
  TwoRows of[ups];
};

template <class Act>
COMIGS_DEVICE ActivationPoint<Act::ups> point_of(TwoRowsUp<Act::ups>& z, int t, int column) {
  float at[Act::ups];
  COMIGS_UNROLL
  for (int s = 0; s < Act::ups; ++s) at[s] = number(z.of[s], t, column);
  return Act::at(at);
}

template <int ups, class Columns, class Number>
COMIGS_DEVICE TwoRowsUp<ups> load_hidden(const MixtureInputs<Number>& in, const Sizes& sizes,
                                         const Columns& columns, const Octet& group) {
  TwoRowsUp<ups> z;
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s)
    z.of[s] = load_tokens(columns, group, columns.row(in.hidden, s * sizes.tokens));
  return z;
}

// An expert's B, as it is multiplied with u.
template <int ups, int eights>
struct UpFactors {
  ByColumn of[ups][eights];
};

template <int ups, int eights, class Columns>
COMIGS_DEVICE UpFactors<ups, eights> load_up(const Columns& columns, const Sizes& sizes, const float* up_B,
                                             int expert, int thread) {
  UpFactors<ups, eights> up;
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s)
    for (int k = 0; k < eights; ++k)
      up.of[s][k] = load_by_column(columns, sizes, up_B, sizes.slot(s, expert), octet * k, thread);
  return up;
}

// rows of each projection += B u.
template <int ups, int eights, class Warp, class Rows, class Factors, class U>
COMIGS_DEVICE void add_low_rank(Warp& warp, const Rows& rows, const Factors& factors, const U& u) {
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s)
    for (int k = 0; k < eights; ++k)
      add_over_ranks(
          warp, [&](int thread) -> TwoRows& { return rows(thread).of[s]; },
          [&](int thread) -> const ByColumn& { return factors(thread).of[s][k]; },
          [&](int thread) { return u(thread).of[s][k]; });
}

// Every warp visits a chunk's active tokens, eight at a time; each thread is told how many there are.
template <class Block, class Pass, class Visit>
COMIGS_DEVICE void each_octet(Block& block, const Pass& pass, const Chunk& at,
                              typename Block::template Local<int>& count, const Visit& visit) {
  const Sizes sizes(pass.in.shape);
  block.each_warp([&](auto& warp) {
    const TensorMemory memory = tensor_memory(block.memory(), Pass::Act::ups, sizes, warp.index());
    const int active = list_active(warp, sizes, pass.in.gate, at, memory.active);
    for (int position = 0; position < active; position += octet) visit(warp, position, active, memory);
    warp.each([&](int thread) { count[thread] = active; });
  });
}

// Forward
// -----------------------------------------------------------------------------------------------------------

template <int ups, int eights>
struct ForwardFactors {
  UpFactors<ups, eights> up;
  ByRank down;
};

template <class Warp, class Pass, class Factors>
COMIGS_DEVICE void forward_octet(Warp& warp, const Pass& pass, const Chunk& at, int position, int count,
                                 typename Warp::template Local<typename Pass::Columns>& columns,
                                 Factors& factors, const TensorMemory& memory) {
  using Act = typename Pass::Act;
  constexpr int ups = Act::ups, eights = Pass::Way::rank_eights;
  const Sizes sizes(pass.in.shape);
  typename Warp::template Local<Octet> group;
  typename Warp::template Local<Coefficients<ups, eights>> u;
  typename Warp::template Local<TwoRowsUp<ups>> z;
  typename Warp::template Local<TwoRows> activation;
  typename Warp::template Local<Four> weighted;
  warp.each([&](int thread) {
    group[thread] = octet_at(at, position, count, thread, memory.active);
    z[thread] = load_hidden<ups>(pass.in, sizes, columns[thread], group[thread]);
    u[thread] =
        load_coefficients<ups, eights>(sizes, pass.in.reduced, at.expert, group[thread].across, thread);
    weighted[thread] = Four{};
  });
  add_low_rank<ups, eights>(
      warp, [&](int thread) -> TwoRowsUp<ups>& { return z[thread]; },
      [&](int thread) -> const UpFactors<ups, eights>& { return factors[thread].up; },
      [&](int thread) -> const Coefficients<ups, eights>& { return u[thread]; });
  warp.each([&](int thread) {
    COMIGS_UNROLL
    for (int t = 0; t < 2; ++t)
      for (int c = 0; c < lane_columns; ++c)
        number(activation[thread], t, c) = group[thread].share[t] * point_of<Act>(z[thread], t, c).value;
    add_to_sums(activation[thread], group[thread], 0, thread, memory.sums);
  });
  add_over_columns(
      warp, [&](int thread) -> Four& { return weighted[thread]; },
      [&](int thread) -> const ByRank& { return factors[thread].down; },
      [&](int thread) -> TwoRows& { return activation[thread]; });
  warp.each(
      [&](int thread) { leave_products(weighted[thread], sizes, ups, 0, position, count, thread, memory); });
}

template <class Block, class Number, class Act, int eights>
COMIGS_DEVICE void mixture_forward_tile(Block& block,
                                        const ForwardPass<Number, Act, ByTensorCores<eights>>& pass,
                                        int column_tile, int token_tile) {
  constexpr int ups = Act::ups, tile = tile_rows / ups;
  const Sizes sizes(pass.in.shape);
  typename Block::template Local<LaneColumns<true>> columns;
  typename Block::template Local<ForwardFactors<ups, eights>> factors;
  typename Block::template Local<int> count;
  float* const weighted = pass.weighted_of_tile + column_tile * sizes.coefficients(1);
  const TensorMemory of_first = tensor_memory(block.memory(), ups, sizes, 0);
  begin_tile(block, pass, column_tile, columns);
  for (int expert = 0; expert < sizes.experts; ++expert) {
    block.each([&](int thread) {
      factors[thread] = {load_up<ups, eights>(columns[thread], sizes, pass.in.up_B, expert, thread),
                         load_by_rank<eights>(columns[thread], sizes, pass.in.down_A, expert, thread)};
    });
    for (int row = 0; row < tile; row += chunk) {
      const Chunk at{token_tile * tile + row, row, expert};
      each_octet(block, pass, at, count,
                 [&](auto& warp, int position, int active, const TensorMemory& memory) {
                   forward_octet(warp, pass, at, position, active, columns, factors, memory);
                 });
      each_active(block, at.first_token, count, of_first, [&](int place, int token, int i) {
        float* const to = weighted + sizes.coefficient(1, token, expert, 0);
        for (int r = i; r < sizes.rank; r += 4) to[r] = sum_of_warps(of_first, ups, sizes, place, r);
      });
    }
  }
  store_tile(block, pass, column_tile, token_tile * tile, 1, pass.out.mixed);
}

// Backward
// ----------------------------------------------------------------------------------------------------------

template <int ups, int eights>
struct BackwardFactors {
  UpFactors<ups, eights> up;
  UpFactors<1, eights> down;
  ByRank up_by_rank[ups];
};

template <int ups, int eights, class Columns, class Number>
COMIGS_DEVICE BackwardFactors<ups, eights> load_factors(const MixtureInputs<Number>& in, const Sizes& sizes,
                                                        const Columns& columns, int expert, int thread) {
  BackwardFactors<ups, eights> factors;
  factors.up = load_up<ups, eights>(columns, sizes, in.up_B, expert, thread);
  factors.down = load_up<1, eights>(columns, sizes, in.down_A, expert, thread);
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s)
    factors.up_by_rank[s] = load_by_rank<eights>(columns, sizes, in.up_B, sizes.slot(s, expert), thread);
  return factors;
}

// What a lane sums over the part's tokens: its columns of two of eight ranks.
template <int ups>
struct TensorFactorSums {
  TwoRows up_B[ups], down_A;
};

// One of two, without an index that is not a constant: they stay in registers.
template <int eights>
COMIGS_DEVICE std::uint32_t of_window(const std::uint32_t (&of)[eights], int window) {
  const std::uint32_t first = of[0], last = of[eights - 1];
  return window == 0 ? first : last;
}

// A group's numbers, of one lane.
template <int ups, int eights>
struct BackwardOctet {
  Octet tokens;
  Coefficients<ups, eights> u;
  Coefficients<1, eights> d_weighted;
  TwoRowsUp<ups> z;           // then d_z
  TwoRowsUp<1> d_activation;  // then the activation times its gate
  Pack<float, 2> d_gate;
};

template <class Act, int eights>
COMIGS_DEVICE void backward_point(BackwardOctet<Act::ups, eights>& lane, int t, int c) {
  const ActivationPoint<Act::ups> a = point_of<Act>(lane.z, t, c);
  float& d = number(lane.d_activation.of[0], t, c);
  const float share = lane.tokens.share[t];
  lane.d_gate.at[t] += d * a.value;
  COMIGS_UNROLL
  for (int s = 0; s < Act::ups; ++s) number(lane.z.of[s], t, c) = d * (share * a.slope[s]);
  d = share * a.value;
}

// Leaves the group's part of d_reduced and d_gate to the block.
template <class Warp, class Pass, class Lanes, class Factors>
COMIGS_DEVICE void leave_gradients(Warp& warp, const Pass& pass, int position, int count, Lanes& lanes,
                                   Factors& factors, const TensorMemory& memory) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s) {
    typename Warp::template Local<Four> reduced;
    warp.each([&](int thread) { reduced[thread] = Four{}; });
    add_over_columns(
        warp, [&](int thread) -> Four& { return reduced[thread]; },
        [&](int thread) -> const ByRank& { return factors[thread].up_by_rank[s]; },
        [&](int thread) -> TwoRows& { return lanes[thread].z.of[s]; });
    warp.each([&](int thread) {
      leave_products(reduced[thread], sizes, ups, s * sizes.rank, position, count, thread, memory);
    });
  }
  typename Warp::template Local<Pack<float, 2>> own, other;
  warp.each([&](int thread) { own[thread] = lanes[thread].d_gate; });
  for (int bit = 4; bit < warp_lanes; bit *= 2) {
    warp.exchange(own, other, bit);
    warp.each([&](int thread) {
      for (int t = 0; t < 2; ++t) own[thread].at[t] += other[thread].at[t];
    });
  }
  warp.each([&](int thread) {
    const int lane = thread % warp_lanes, of_token = products_of_token(ups, sizes.rank);
    for (int t = 0; t < 2; ++t)
      if (const int place = position + lane * 2 + t; lane < 4 && place < count)
        memory.products[place * of_token + ups * sizes.rank] = own[thread].at[t];
  });
}

template <class Pass>
COMIGS_DEVICE auto load_octet(const Pass& pass, const Sizes& sizes, const Chunk& at, const Octet& tokens,
                              const typename Pass::Columns& columns, int thread) {
  constexpr int ups = Pass::Act::ups, eights = Pass::Way::rank_eights;
  BackwardOctet<ups, eights> lane;
  lane.tokens = tokens;
  lane.z = load_hidden<ups>(pass.in, sizes, columns, tokens);
  lane.d_activation.of[0] = load_tokens(columns, tokens, pass.g.d_mixed);
  lane.u = load_coefficients<ups, eights>(sizes, pass.in.reduced, at.expert, tokens.across, thread);
  lane.d_weighted = load_coefficients<1, eights>(sizes, pass.g.d_weighted, at.expert, tokens.across, thread);
  lane.d_gate = Pack<float, 2>{};
  return lane;
}

// `window`: of which eight ranks the factors' sums are made. Only the first one makes what does not depend on
// it.
template <class Warp, class Pass, class Factors, class Sums>
COMIGS_DEVICE void backward_octet(Warp& warp, const Pass& pass, const Chunk& at, int window, int position,
                                  int count, typename Warp::template Local<typename Pass::Columns>& columns,
                                  Factors& factors, Sums& sums, const TensorMemory& memory) {
  using Act = typename Pass::Act;
  constexpr int ups = Act::ups, eights = Pass::Way::rank_eights;
  const Sizes sizes(pass.in.shape);
  typename Warp::template Local<BackwardOctet<ups, eights>> lanes;
  warp.each([&](int thread) {
    lanes[thread] = load_octet(pass, sizes, at, octet_at(at, position, count, thread, memory.active),
                               columns[thread], thread);
  });
  add_low_rank<ups, eights>(
      warp, [&](int thread) -> TwoRowsUp<ups>& { return lanes[thread].z; },
      [&](int thread) -> const UpFactors<ups, eights>& { return factors[thread].up; },
      [&](int thread) -> const Coefficients<ups, eights>& { return lanes[thread].u; });
  add_low_rank<1, eights>(
      warp, [&](int thread) -> TwoRowsUp<1>& { return lanes[thread].d_activation; },
      [&](int thread) -> const UpFactors<1, eights>& { return factors[thread].down; },
      [&](int thread) -> const Coefficients<1, eights>& { return lanes[thread].d_weighted; });
  warp.each([&](int thread) {
    auto& lane = lanes[thread];
    COMIGS_UNROLL
    for (int t = 0; t < 2; ++t)
      for (int c = 0; c < lane_columns; ++c) backward_point<Act>(lane, t, c);
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s)
      if (window == 0) add_to_sums(lane.z.of[s], lane.tokens, s * (tile_rows / ups), thread, memory.sums);
  });
  COMIGS_UNROLL
  for (int s = 0; s < ups; ++s)
    add_over_tokens(
        warp, [&](int thread) -> TwoRows& { return sums[thread].up_B[s]; },
        [&](int thread) -> TwoRows& { return lanes[thread].z.of[s]; },
        [&](int thread) { return of_window(lanes[thread].u.of[s], window); });
  add_over_tokens(
      warp, [&](int thread) -> TwoRows& { return sums[thread].down_A; },
      [&](int thread) -> TwoRows& { return lanes[thread].d_activation.of[0]; },
      [&](int thread) { return of_window(lanes[thread].d_weighted.of[0], window); });
  if (window == 0) leave_gradients(warp, pass, position, count, lanes, factors, memory);
}

// What the warps have left of d_reduced and d_gate, for the columns of a tile.
template <class Block, class Pass>
COMIGS_DEVICE void sum_gradients(Block& block, const Pass& pass, int column_tile, const Chunk& at,
                                 typename Block::template Local<int>& count) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  const TensorMemory first = tensor_memory(block.memory(), ups, sizes, 0);
  float* const reduced = pass.reduced_of_tile + column_tile * sizes.coefficients(ups);
  float* const gate = pass.gate_of_tile + column_tile * sizes.pairs();
  each_active(block, at.first_token, count, first, [&](int place, int token, int i) {
    for (int s = 0; s < ups; ++s) {
      float* const to = reduced + sizes.coefficient(ups, token, sizes.slot(s, at.expert), 0);
      for (int r = i; r < sizes.rank; r += 4)
        to[r] = sum_of_warps(first, ups, sizes, place, s * sizes.rank + r);
    }
    if (i == 0) gate[sizes.pair(token, at.expert)] = sum_of_warps(first, ups, sizes, place, ups * sizes.rank);
  });
}

// Adds a tile's sums over tokens to what the part has so far.
template <class Block, class Pass, class Sums>
COMIGS_DEVICE void add_to_part(Block& block, const Pass& pass, int expert, int window, int part, bool first,
                               typename Block::template Local<typename Pass::Columns>& columns, Sums& sums) {
  constexpr int ups = Pass::Act::ups;
  const Sizes sizes(pass.in.shape);
  block.each([&](int thread) {
    const auto add = [&](float* factors, int slot, TwoRows& added) {
      COMIGS_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int r = window * octet + thread % 4 * 2 + i;
        if (r >= sizes.rank) continue;
        float* const to = factors + sizes.factor(slot, r);
        Four sum = first ? Four{} : columns[thread].load(to);
        COMIGS_UNROLL
        for (int c = 0; c < lane_columns; ++c) sum.at[c] += number(added, i, c);
        columns[thread].store(sum, to);
      }
    };
    COMIGS_UNROLL
    for (int s = 0; s < ups; ++s)
      if (pass.g.d_up_B != nullptr)
        add(pass.up_B_of_part + part * sizes.factors(ups), sizes.slot(s, expert), sums[thread].up_B[s]);
    if (pass.g.d_down_A != nullptr)
      add(pass.down_A_of_part + part * sizes.factors(1), expert, sums[thread].down_A);
  });
}

template <class Block, class Number, class Act, int eights>
COMIGS_DEVICE void mixture_backward_tile(Block& block,
                                         const BackwardPass<Number, Act, ByTensorCores<eights>>& pass,
                                         int column_tile, int token_tile, int part, bool first) {
  constexpr int ups = Act::ups, tile = tile_rows / ups;
  const Sizes sizes(pass.in.shape);
  const bool wants_factors = pass.g.d_up_B != nullptr || pass.g.d_down_A != nullptr;
  typename Block::template Local<LaneColumns<true>> columns;
  typename Block::template Local<BackwardFactors<ups, eights>> factors;
  typename Block::template Local<TensorFactorSums<ups>> sums;
  typename Block::template Local<int> count;
  begin_tile(block, pass, column_tile, columns);
  for (int window = 0; window == 0 || (wants_factors && window * octet < sizes.rank); ++window)
    for (int expert = 0; expert < sizes.experts; ++expert) {
      block.each([&](int thread) {
        factors[thread] = load_factors<ups, eights>(pass.in, sizes, columns[thread], expert, thread);
        sums[thread] = TensorFactorSums<ups>{};
      });
      for (int row = 0; row < tile; row += chunk) {
        const Chunk at{token_tile * tile + row, row, expert};
        each_octet(block, pass, at, count,
                   [&](auto& warp, int position, int active, const TensorMemory& memory) {
                     backward_octet(warp, pass, at, window, position, active, columns, factors, sums, memory);
                   });
        if (window > 0) continue;
        sum_gradients(block, pass, column_tile, at, count);
      }
      if (wants_factors) add_to_part(block, pass, expert, window, part, first, columns, sums);
    }
  store_tile(block, pass, column_tile, token_tile * tile, ups, pass.g.d_hidden);
}

}  // namespace comigs::kernels
