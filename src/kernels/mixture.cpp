// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/mixture.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "mixture.cpp"
#include <hwy/foreach_target.h>

#include "activations-inl.h"
#include "vectors-inl.h"

#include <algorithm>
#include <array>

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

// A tile of tokens and columns stays in the second-level cache while all experts pass over it; of a tile,
// four tokens at a time share what is loaded of the factors.
constexpr std::int64_t tile_tokens = 64, tile_columns = 1024;
constexpr std::size_t block = 4;

// A part of a tile that is worked on at a time: N tokens that `expert` is active for, and columns
// [first, first + count) of the inner width.
template <std::size_t N>
struct Part {
  std::int64_t expert = 0;
  std::array<std::int64_t, N> tokens{};
  std::int64_t first = 0, count = 0;
};

// For each token of a part, where its numbers lie in an array of [token, stride] from `offset` on.
template <class T, std::size_t N>
HWY_INLINE std::array<T*, N> rows_of(T* numbers, const Part<N>& part, std::int64_t stride,
                                     std::int64_t offset) {
  std::array<T*, N> rows;
  for (std::size_t t = 0; t < N; ++t) rows[t] = numbers + part.tokens[t] * stride + offset;
  return rows;
}

// A factor [., E, R, F] at the part's first column, of expert `expert` of all that it has.
template <class T, std::size_t N>
HWY_INLINE T* factor_of(T* factor, const Part<N>& part, const MixtureShape& shape, std::int64_t expert) {
  return factor == nullptr ? nullptr : factor + expert * shape.rank * shape.inner + part.first;
}

template <std::size_t N>
using Scratch = std::array<float, N * tile_columns>;

// What belongs to up projection s: rows of hidden [S, n, F], of coefficients [n, S, E, R], and a factor
// [S, E, R, F].
template <class T, std::size_t N>
HWY_INLINE std::array<T*, N> hidden_of(T* hidden, const Part<N>& part, const MixtureShape& shape,
                                       std::size_t s) {
  return rows_of(hidden, part, shape.inner,
                 static_cast<std::int64_t>(s) * shape.tokens * shape.inner + part.first);
}
template <class T, std::size_t N>
HWY_INLINE std::array<T*, N> reduced_of(T* reduced, const Part<N>& part, const MixtureShape& shape,
                                        std::size_t s) {
  return rows_of(reduced, part, shape.ups() * shape.experts * shape.rank,
                 (static_cast<std::int64_t>(s) * shape.experts + part.expert) * shape.rank);
}
template <class T, std::size_t N>
HWY_INLINE T* up_factor_of(T* factor, const Part<N>& part, const MixtureShape& shape, std::size_t s) {
  return factor_of(factor, part, shape, static_cast<std::int64_t>(s) * shape.experts + part.expert);
}
// Of coefficients [n, E, R].
template <class T, std::size_t N>
HWY_INLINE std::array<T*, N> weighted_of(T* weighted, const Part<N>& part, const MixtureShape& shape) {
  return rows_of(weighted, part, shape.experts * shape.rank, part.expert * shape.rank);
}

// f(s) of every up projection.
template <class A, class F>
HWY_INLINE auto of_ups(const F& f) {
  std::array<decltype(f(std::size_t{0})), A::ups> all;
  for (std::size_t s = 0; s < A::ups; ++s) all[s] = f(s);
  return all;
}

// What K ranks from `rank` on have to do with the part's `rows` (a token's every tile_columns), in one pass
// over them: with `sums`, sums[t][r] += sum over columns of rows[t][c] factor[r][c]; with `outer`,
// d_factor[r][c] += sum over tokens of weights[t][r] rows[t][c].
template <bool sum, bool outer, std::size_t K, class D, std::size_t N>
void few_ranks(D d, std::int64_t columns, std::int64_t stride, std::int64_t rank, const float* rows,
               const float* factor, const std::array<float*, N>& sums,
               const std::array<const float*, N>& weights, float* d_factor) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::array<V<D>, N * K> total, weight;
  for (std::size_t i = 0; i < N * K; ++i) {
    total[i] = hn::Zero(d);
    if constexpr (outer) weight[i] = hn::Set(d, weights[i / K][rank + static_cast<std::int64_t>(i % K)]);
  }
  for (std::int64_t c = 0; c < columns; c += lanes) {
    std::array<V<D>, N> x;
    for (std::size_t t = 0; t < N; ++t)
      x[t] = hn::LoadU(d, rows + static_cast<std::int64_t>(t) * tile_columns + c);
    for (std::size_t k = 0; k < K; ++k) {
      const std::int64_t at = (rank + static_cast<std::int64_t>(k)) * stride + c;
      if constexpr (sum) {
        const auto f = hn::LoadU(d, factor + at);
        for (std::size_t t = 0; t < N; ++t) total[t * K + k] = hn::MulAdd(x[t], f, total[t * K + k]);
      }
      if constexpr (outer) {
        auto gradient = hn::LoadU(d, d_factor + at);
        for (std::size_t t = 0; t < N; ++t) gradient = hn::MulAdd(weight[t * K + k], x[t], gradient);
        hn::StoreU(gradient, d, d_factor + at);
      }
    }
  }
  if constexpr (sum)
    for (std::size_t i = 0; i < N * K; ++i)
      sums[i / K][rank + static_cast<std::int64_t>(i % K)] += hn::GetLane(hn::SumOfLanes(d, total[i]));
}

template <bool sum, bool outer, class D, std::size_t N>
void all_ranks(D d, std::int64_t columns, const MixtureShape& shape, const Scratch<N>& rows,
               const float* factor, const std::array<float*, N>& sums,
               const std::array<const float*, N>& weights, float* d_factor) {
  constexpr std::int64_t together = sum && outer ? 2 : 4;  // as many as the registers hold
  std::int64_t r = 0;
  for (; r + together <= shape.rank; r += together)
    few_ranks<sum, outer, together>(d, columns, shape.inner, r, rows.data(), factor, sums, weights, d_factor);
  for (; r < shape.rank; ++r)
    few_ranks<sum, outer, 1>(d, columns, shape.inner, r, rows.data(), factor, sums, weights, d_factor);
}

template <class A, class D, class Number, std::size_t N>
void forward_part(D d, const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out,
                  const Part<N>& part) {
  const MixtureShape& shape = in.shape;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN Scratch<N> activations;
  const auto hidden = of_ups<A>([&](std::size_t s) { return hidden_of(in.hidden, part, shape, s); });
  const auto u = of_ups<A>([&](std::size_t s) { return reduced_of(in.reduced, part, shape, s); });
  const auto up_B = of_ups<A>([&](std::size_t s) { return up_factor_of(in.up_B, part, shape, s); });
  const auto mixed = rows_of(out.mixed, part, shape.inner, part.first);
  const auto share = rows_of(in.gate, part, shape.experts, part.expert);
  for (std::int64_t c = 0; c < part.count; c += lanes) {
    std::array<std::array<V<D>, A::ups>, N> z;
    for (std::size_t s = 0; s < A::ups; ++s) {
      for (std::size_t t = 0; t < N; ++t) z[t][s] = load(d, hidden[s][t] + c);
      for (std::int64_t r = 0; r < shape.rank; ++r) {
        const auto f = hn::LoadU(d, up_B[s] + r * shape.inner + c);
        for (std::size_t t = 0; t < N; ++t) z[t][s] = hn::MulAdd(hn::Set(d, u[s][t][r]), f, z[t][s]);
      }
    }
    for (std::size_t t = 0; t < N; ++t) {
      const auto a = hn::Mul(hn::Set(d, *share[t]), A::at(d, z[t]).value);
      hn::StoreU(a, d, activations.data() + static_cast<std::int64_t>(t) * tile_columns + c);
      store(d, hn::Add(load(d, mixed[t] + c), a), mixed[t] + c);
    }
  }
  all_ranks<true, false>(d, part.count, shape, activations, factor_of(in.down_A, part, shape, part.expert),
                         weighted_of(out.weighted, part, shape), u[0], nullptr);
}

// Fills `d_before` (of each projection the gradient of what the activation is of) and `activations` (after
// the gate) of a part.
template <class A, class D, class Number, std::size_t N>
void activate_backward(D d, const MixtureInputs<Number>& in, const MixtureGradients<Number>& g,
                       const Part<N>& part, std::array<Scratch<N>, A::ups>& d_before,
                       Scratch<N>& activations) {
  const MixtureShape& shape = in.shape;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto hidden = of_ups<A>([&](std::size_t s) { return hidden_of(in.hidden, part, shape, s); });
  const auto d_hidden = of_ups<A>([&](std::size_t s) { return hidden_of(g.d_hidden, part, shape, s); });
  const auto u = of_ups<A>([&](std::size_t s) { return reduced_of(in.reduced, part, shape, s); });
  const auto up_B = of_ups<A>([&](std::size_t s) { return up_factor_of(in.up_B, part, shape, s); });
  const auto d_mixed = rows_of(g.d_mixed, part, shape.inner, part.first);
  const auto w = weighted_of(g.d_weighted, part, shape);
  const auto share = rows_of(in.gate, part, shape.experts, part.expert);
  const float* down_A = factor_of(in.down_A, part, shape, part.expert);
  std::array<V<D>, N> d_share;
  for (std::size_t t = 0; t < N; ++t) d_share[t] = hn::Zero(d);
  for (std::int64_t c = 0; c < part.count; c += lanes) {
    std::array<std::array<V<D>, A::ups>, N> z;
    std::array<V<D>, N> d_a;
    for (std::size_t t = 0; t < N; ++t) {
      for (std::size_t s = 0; s < A::ups; ++s) z[t][s] = load(d, hidden[s][t] + c);
      d_a[t] = load(d, d_mixed[t] + c);
    }
    for (std::int64_t r = 0; r < shape.rank; ++r) {
      const std::int64_t at = r * shape.inner + c;
      for (std::size_t s = 0; s < A::ups; ++s) {
        const auto b = hn::LoadU(d, up_B[s] + at);
        for (std::size_t t = 0; t < N; ++t) z[t][s] = hn::MulAdd(hn::Set(d, u[s][t][r]), b, z[t][s]);
      }
      const auto a = hn::LoadU(d, down_A + at);
      for (std::size_t t = 0; t < N; ++t) d_a[t] = hn::MulAdd(hn::Set(d, w[t][r]), a, d_a[t]);
    }
    for (std::size_t t = 0; t < N; ++t) {
      const std::int64_t at = static_cast<std::int64_t>(t) * tile_columns + c;
      const Point<D, A::ups> a = A::at(d, z[t]);
      const auto weight = hn::Set(d, *share[t]), weighted = hn::Mul(d_a[t], weight);
      d_share[t] = hn::MulAdd(d_a[t], a.value, d_share[t]);
      for (std::size_t s = 0; s < A::ups; ++s) {
        const auto d_z = hn::Mul(weighted, a.slope[s]);
        hn::StoreU(d_z, d, d_before[s].data() + at);
        store(d, hn::Add(load(d, d_hidden[s][t] + c), d_z), d_hidden[s][t] + c);
      }
      hn::StoreU(hn::Mul(weight, a.value), d, activations.data() + at);
    }
  }
  if (g.d_gate == nullptr) return;
  const auto d_gate = rows_of(g.d_gate, part, shape.experts, part.expert);
  for (std::size_t t = 0; t < N; ++t) *d_gate[t] += hn::GetLane(hn::SumOfLanes(d, d_share[t]));
}

template <class A, class D, class Number, std::size_t N>
void backward_part(D d, const MixtureInputs<Number>& in, const MixtureGradients<Number>& g,
                   const Part<N>& part) {
  const MixtureShape& shape = in.shape;
  HWY_ALIGN std::array<Scratch<N>, A::ups> d_before;
  HWY_ALIGN Scratch<N> activations;
  activate_backward<A>(d, in, g, part, d_before, activations);
  for (std::size_t s = 0; s < A::ups; ++s) {
    const auto u = reduced_of(in.reduced, part, shape, s);
    const auto d_u = reduced_of(g.d_reduced, part, shape, s);
    const float* up_B = up_factor_of(in.up_B, part, shape, s);
    float* d_up_B = up_factor_of(g.d_up_B, part, shape, s);
    if (d_up_B != nullptr)
      all_ranks<true, true>(d, part.count, shape, d_before[s], up_B, d_u, u, d_up_B);
    else
      all_ranks<true, false>(d, part.count, shape, d_before[s], up_B, d_u, u, nullptr);
  }
  if (float* d_down_A = factor_of(g.d_down_A, part, shape, part.expert); d_down_A != nullptr)
    all_ranks<false, true>(d, part.count, shape, activations, nullptr, {},
                           weighted_of(g.d_weighted, part, shape), d_down_A);
}

// Calls visit(d, part) for what an expert is active for of a tile; whole vectors first, then what is left of
// a row one column at a time.
template <std::size_t N, class Visit>
void visit_columns(Part<N> part, const Visit& visit) {
  const hn::ScalableTag<float> wide;
  const hn::CappedTag<float, 1> narrow;
  const std::int64_t end = part.first + part.count,
                     left = part.count % static_cast<std::int64_t>(hn::Lanes(wide));
  part.count -= left;
  if (part.count > 0) visit(wide, part);
  part.first = end - left;
  part.count = left;
  if (left > 0) visit(narrow, part);
}

// The tokens of [begin, end) that `expert` is active for: four at a time, then one by one.
template <class Number, class Visit>
void visit_tokens(const MixtureInputs<Number>& in, std::int64_t expert, std::int64_t begin, std::int64_t end,
                  std::int64_t first, std::int64_t count, const Visit& visit) {
  Part<block> part{.expert = expert, .first = first, .count = count};
  std::size_t found = 0;
  for (std::int64_t token = begin; token < end; ++token) {
    if (in.gate[token * in.shape.experts + expert] == 0.0f) continue;
    part.tokens[found++] = token;
    if (found == block) visit_columns(part, visit), found = 0;
  }
  for (std::size_t t = 0; t < found; ++t)
    visit_columns(Part<1>{.expert = expert, .tokens = {part.tokens[t]}, .first = first, .count = count},
                  visit);
}

// Tile by tile, all experts; the `sums` arrays [n, F] at `sum`, which they add to, are zero before.
template <class Number, class Visit>
void visit_tiles(const MixtureInputs<Number>& in, std::int64_t token_begin, std::int64_t token_end,
                 std::int64_t column_begin, std::int64_t column_end, Number* sum, std::int64_t sums,
                 const Visit& visit) {
  const MixtureShape& shape = in.shape;
  for (std::int64_t first = column_begin; first < column_end; first += tile_columns) {
    const std::int64_t count = std::min(tile_columns, column_end - first);
    for (std::int64_t tile = token_begin; tile < token_end; tile += tile_tokens) {
      const std::int64_t tile_end = std::min(tile + tile_tokens, token_end);
      for (std::int64_t s = 0; s < sums; ++s)
        for (std::int64_t token = tile; token < tile_end; ++token)
          std::fill_n(sum + (s * shape.tokens + token) * shape.inner + first, count, Number{});
      for (std::int64_t expert = 0; expert < shape.experts; ++expert)
        visit_tokens(in, expert, tile, tile_end, first, count, visit);
    }
  }
}

template <class Number>
void forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out, std::int64_t begin,
             std::int64_t end) {
  const MixtureShape& shape = in.shape;
  std::fill(out.weighted + begin * shape.experts * shape.rank,
            out.weighted + end * shape.experts * shape.rank, 0.0f);
  with_activation(shape.activation, [&](auto activation) {
    visit_tiles(in, begin, end, 0, shape.inner, out.mixed, 1,
                [&](auto d, const auto& part) { forward_part<decltype(activation)>(d, in, out, part); });
  });
}

template <class Number>
void backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients, std::int64_t begin,
              std::int64_t end) {
  const MixtureShape& shape = in.shape;
  const auto clear = [&](float* factor, std::int64_t rows) {
    for (std::int64_t row = 0; row < rows && factor != nullptr; ++row)
      std::fill(factor + row * shape.inner + begin, factor + row * shape.inner + end, 0.0f);
  };
  clear(gradients.d_up_B, shape.ups() * shape.experts * shape.rank);
  clear(gradients.d_down_A, shape.experts * shape.rank);
  const std::int64_t pairs = shape.tokens * shape.experts;
  std::fill_n(gradients.d_reduced, pairs * shape.ups() * shape.rank, 0.0f);
  if (gradients.d_gate != nullptr) std::fill_n(gradients.d_gate, pairs, 0.0f);
  with_activation(shape.activation, [&](auto activation) {
    visit_tiles(
        in, 0, shape.tokens, begin, end, gradients.d_hidden, shape.ups(),
        [&](auto d, const auto& part) { backward_part<decltype(activation)>(d, in, gradients, part); });
  });
}

void ForwardFloat(const MixtureInputs<float>& in, const MixtureOutputs<float>& out, std::int64_t begin,
                  std::int64_t end) {
  forward(in, out, begin, end);
}
void ForwardBfloat16(const MixtureInputs<Bfloat16>& in, const MixtureOutputs<Bfloat16>& out,
                     std::int64_t begin, std::int64_t end) {
  forward(in, out, begin, end);
}
void BackwardFloat(const MixtureInputs<float>& in, const MixtureGradients<float>& gradients,
                   std::int64_t begin, std::int64_t end) {
  backward(in, gradients, begin, end);
}
void BackwardBfloat16(const MixtureInputs<Bfloat16>& in, const MixtureGradients<Bfloat16>& gradients,
                      std::int64_t begin, std::int64_t end) {
  backward(in, gradients, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace comigs::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comigs::kernels {

HWY_EXPORT(ForwardFloat);
HWY_EXPORT(ForwardBfloat16);
HWY_EXPORT(BackwardFloat);
HWY_EXPORT(BackwardBfloat16);

template <>
void mixture_forward(const MixtureInputs<float>& in, const MixtureOutputs<float>& out, std::int64_t begin,
                     std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(in, out, begin, end);
}
template <>
void mixture_forward(const MixtureInputs<Bfloat16>& in, const MixtureOutputs<Bfloat16>& out,
                     std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardBfloat16)(in, out, begin, end);
}
template <>
void mixture_backward(const MixtureInputs<float>& in, const MixtureGradients<float>& gradients,
                      std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(in, gradients, begin, end);
}
template <>
void mixture_backward(const MixtureInputs<Bfloat16>& in, const MixtureGradients<Bfloat16>& gradients,
                      std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardBfloat16)(in, gradients, begin, end);
}

}  // namespace comigs::kernels
#endif
