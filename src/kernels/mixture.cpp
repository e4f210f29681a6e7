// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/mixture.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "mixture.cpp"
#include <hwy/foreach_target.h>

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

// To the last bits: x86 estimates twelve of them or more, which a step of Newton's method doubles, much
// sooner than a division would be done.
template <class D>
HWY_INLINE V<D> reciprocal(D d, V<D> x) {
#if HWY_ARCH_X86
  const auto estimate = hn::ApproximateReciprocal(x);
  return hn::Mul(estimate, hn::NegMulAdd(x, estimate, hn::Set(d, 2.0f)));
#else
  return hn::Div(hn::Set(d, 1.0f), x);
#endif
}

// gelu(z) = z s with s = sigmoid(2 sqrt(2/pi) (z + 0.044715 z^3)), which is 0.5 z (1 + tanh(...)).
template <class D>
struct Gelu {
  V<D> value, slope;
};
template <class D>
HWY_INLINE Gelu<D> gelu(D d, V<D> z) {
  const auto c = hn::Set(d, 1.5957691216057308f), cubic = hn::Set(d, 0.044715f * 1.5957691216057308f);
  const auto square = hn::Mul(z, z), one = hn::Set(d, 1.0f);
  const auto argument = hn::Mul(z, hn::MulAdd(cubic, square, c));
  // Beyond +-80 the sigmoid is 0 or 1 to the last bit, and the exponential would overflow.
  const auto bounded = hn::Clamp(argument, hn::Set(d, -80.0f), hn::Set(d, 80.0f));
  const auto e = exponential(d, hn::Neg(bounded)), divisor = hn::Add(one, e);
  const auto s = reciprocal(d, divisor);
  const auto inner_slope = hn::MulAdd(hn::Set(d, 3.0f * 0.044715f * 1.5957691216057308f), square, c);
  // 1 - s is e s, which is also right where s is nearly 1.
  const auto slope = hn::MulAdd(hn::Mul(z, hn::Mul(s, hn::Mul(e, s))), inner_slope, s);
  return {.value = hn::Mul(z, s), .slope = slope};
}

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

// A factor [E, R, F] at the part's expert and first column.
template <class T, std::size_t N>
HWY_INLINE T* factor_of(T* factor, const Part<N>& part, const MixtureShape& shape) {
  return factor == nullptr ? nullptr : factor + part.expert * shape.rank * shape.inner + part.first;
}

template <std::size_t N>
using Scratch = std::array<float, N * tile_columns>;

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

template <class D, class Number, std::size_t N>
void forward_part(D d, const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out,
                  const Part<N>& part) {
  const auto [n, F, E, R] = in.shape;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN Scratch<N> activations;
  const auto hidden = rows_of(in.hidden, part, F, part.first);
  const auto mixed = rows_of(out.mixed, part, F, part.first);
  const auto u = rows_of(in.reduced, part, E * R, part.expert * R);
  const auto share = rows_of(in.gate, part, E, part.expert);
  const float* up_B = factor_of(in.up_B, part, in.shape);
  for (std::int64_t c = 0; c < part.count; c += lanes) {
    std::array<V<D>, N> z;
    for (std::size_t t = 0; t < N; ++t) z[t] = load(d, hidden[t] + c);
    for (std::int64_t r = 0; r < R; ++r) {
      const auto f = hn::LoadU(d, up_B + r * F + c);
      for (std::size_t t = 0; t < N; ++t) z[t] = hn::MulAdd(hn::Set(d, u[t][r]), f, z[t]);
    }
    for (std::size_t t = 0; t < N; ++t) {
      const auto a = hn::Mul(hn::Set(d, *share[t]), gelu(d, z[t]).value);
      hn::StoreU(a, d, activations.data() + static_cast<std::int64_t>(t) * tile_columns + c);
      store(d, hn::Add(load(d, mixed[t] + c), a), mixed[t] + c);
    }
  }
  all_ranks<true, false>(d, part.count, in.shape, activations, factor_of(in.down_A, part, in.shape),
                         rows_of(out.weighted, part, E * R, part.expert * R), u, nullptr);
}

// Fills `d_before` (the gradient of what gelu is applied to) and `activations` (after the gate) of a part.
template <class D, class Number, std::size_t N>
void activate_backward(D d, const MixtureInputs<Number>& in, const MixtureGradients<Number>& g,
                       const Part<N>& part, Scratch<N>& d_before, Scratch<N>& activations) {
  const auto [n, F, E, R] = in.shape;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto hidden = rows_of(in.hidden, part, F, part.first);
  const auto d_mixed = rows_of(g.d_mixed, part, F, part.first);
  const auto d_hidden = rows_of(g.d_hidden, part, F, part.first);
  const auto u = rows_of(in.reduced, part, E * R, part.expert * R);
  const auto w = rows_of(g.d_weighted, part, E * R, part.expert * R);
  const auto share = rows_of(in.gate, part, E, part.expert);
  const float *up_B = factor_of(in.up_B, part, in.shape), *down_A = factor_of(in.down_A, part, in.shape);
  std::array<V<D>, N> d_share;
  for (std::size_t t = 0; t < N; ++t) d_share[t] = hn::Zero(d);
  for (std::int64_t c = 0; c < part.count; c += lanes) {
    std::array<V<D>, N> z, d_a;
    for (std::size_t t = 0; t < N; ++t) z[t] = load(d, hidden[t] + c), d_a[t] = load(d, d_mixed[t] + c);
    for (std::int64_t r = 0; r < R; ++r) {
      const auto b = hn::LoadU(d, up_B + r * F + c), a = hn::LoadU(d, down_A + r * F + c);
      for (std::size_t t = 0; t < N; ++t) {
        z[t] = hn::MulAdd(hn::Set(d, u[t][r]), b, z[t]);
        d_a[t] = hn::MulAdd(hn::Set(d, w[t][r]), a, d_a[t]);
      }
    }
    for (std::size_t t = 0; t < N; ++t) {
      const std::int64_t at = static_cast<std::int64_t>(t) * tile_columns + c;
      const Gelu<D> a = gelu(d, z[t]);
      const auto weight = hn::Set(d, *share[t]);
      d_share[t] = hn::MulAdd(d_a[t], a.value, d_share[t]);
      const auto d_z = hn::Mul(hn::Mul(d_a[t], weight), a.slope);
      hn::StoreU(d_z, d, d_before.data() + at);
      hn::StoreU(hn::Mul(weight, a.value), d, activations.data() + at);
      store(d, hn::Add(load(d, d_hidden[t] + c), d_z), d_hidden[t] + c);
    }
  }
  if (g.d_gate == nullptr) return;
  const auto d_gate = rows_of(g.d_gate, part, E, part.expert);
  for (std::size_t t = 0; t < N; ++t) *d_gate[t] += hn::GetLane(hn::SumOfLanes(d, d_share[t]));
}

template <class D, class Number, std::size_t N>
void backward_part(D d, const MixtureInputs<Number>& in, const MixtureGradients<Number>& g,
                   const Part<N>& part) {
  const auto [n, F, E, R] = in.shape;
  HWY_ALIGN Scratch<N> d_before, activations;
  activate_backward(d, in, g, part, d_before, activations);
  const auto u = rows_of(in.reduced, part, E * R, part.expert * R);
  const auto w = rows_of(g.d_weighted, part, E * R, part.expert * R);
  const auto d_u = rows_of(g.d_reduced, part, E * R, part.expert * R);
  const float* up_B = factor_of(in.up_B, part, in.shape);
  float *d_up_B = factor_of(g.d_up_B, part, in.shape), *d_down_A = factor_of(g.d_down_A, part, in.shape);
  if (d_up_B != nullptr)
    all_ranks<true, true>(d, part.count, in.shape, d_before, up_B, d_u, u, d_up_B);
  else
    all_ranks<true, false>(d, part.count, in.shape, d_before, up_B, d_u, u, nullptr);
  if (d_down_A != nullptr)
    all_ranks<false, true>(d, part.count, in.shape, activations, nullptr, d_u, w, d_down_A);
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

// Tile by tile, all experts; `sum` [n, F], which they add to, is zero before.
template <class Number, class Visit>
void visit_tiles(const MixtureInputs<Number>& in, std::int64_t token_begin, std::int64_t token_end,
                 std::int64_t column_begin, std::int64_t column_end, Number* sum, const Visit& visit) {
  for (std::int64_t first = column_begin; first < column_end; first += tile_columns) {
    const std::int64_t count = std::min(tile_columns, column_end - first);
    for (std::int64_t tile = token_begin; tile < token_end; tile += tile_tokens) {
      const std::int64_t tile_end = std::min(tile + tile_tokens, token_end);
      for (std::int64_t token = tile; token < tile_end; ++token)
        std::fill_n(sum + token * in.shape.inner + first, count, Number{});
      for (std::int64_t expert = 0; expert < in.shape.experts; ++expert)
        visit_tokens(in, expert, tile, tile_end, first, count, visit);
    }
  }
}

template <class Number>
void forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out, std::int64_t begin,
             std::int64_t end) {
  const auto [n, F, E, R] = in.shape;
  std::fill(out.weighted + begin * E * R, out.weighted + end * E * R, 0.0f);
  visit_tiles(in, begin, end, 0, F, out.mixed,
              [&](auto d, const auto& part) { forward_part(d, in, out, part); });
}

template <class Number>
void backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients, std::int64_t begin,
              std::int64_t end) {
  const auto [n, F, E, R] = in.shape;
  for (float* factor : {gradients.d_up_B, gradients.d_down_A})
    for (std::int64_t row = 0; row < E * R && factor != nullptr; ++row)
      std::fill(factor + row * F + begin, factor + row * F + end, 0.0f);
  visit_tiles(in, 0, n, begin, end, gradients.d_hidden,
              [&](auto d, const auto& part) { backward_part(d, in, gradients, part); });
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
