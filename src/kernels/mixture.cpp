// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/mixture.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "mixture.cpp"
#include <hwy/foreach_target.h>

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// A tile of tokens and columns stays in the second-level cache while all experts pass over it; of a tile,
// four tokens at a time share what is loaded of the factors.
constexpr std::int64_t tile_tokens = 16, tile_columns = 1024, block = 4;

template <class D>
using V = hn::Vec<D>;

template <class D>
V<D> load([[maybe_unused]] D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
V<D> load([[maybe_unused]] D d, const Bfloat16* from) {
  const hn::Rebind<std::uint32_t, D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(hn::Rebind<Bfloat16, D>(), from))));
}
template <class D>
void store([[maybe_unused]] D d, V<D> value, float* to) {
  hn::StoreU(value, d, to);
}
template <class D>
void store([[maybe_unused]] D d, V<D> value, Bfloat16* to) {
  // To nearest, ties to even.
  const hn::Rebind<std::uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFF))));
  const hn::Rebind<Bfloat16, D> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<decltype(d32)>(), rounded)), d16, to);
}

// gelu(z) = z s with s = sigmoid(2 sqrt(2/pi) (z + 0.044715 z^3)), which is 0.5 z (1 + tanh(...)).
template <class D>
struct Gelu {
  V<D> value, slope;
};
template <class D>
Gelu<D> gelu(D d, V<D> z) {
  const auto c = hn::Set(d, 1.5957691216057308f), cubic = hn::Set(d, 0.044715f * 1.5957691216057308f);
  const auto square = hn::Mul(z, z), one = hn::Set(d, 1.0f);
  const auto argument = hn::Mul(z, hn::MulAdd(cubic, square, c));
  // Beyond +-80 the sigmoid is 0 or 1 to the last bit, and the exponential would overflow.
  const auto bounded = hn::Clamp(argument, hn::Set(d, -80.0f), hn::Set(d, 80.0f));
  const auto s = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(bounded))));
  const auto inner_slope = hn::MulAdd(hn::Mul(hn::Set(d, 3.0f), cubic), square, c);
  const auto slope = hn::MulAdd(hn::Mul(z, hn::Mul(s, hn::Sub(one, s))), inner_slope, s);
  return {.value = hn::Mul(z, s), .slope = slope};
}

// Up to four tokens that an expert is active for.
struct Block {
  std::int64_t count = 0;
  std::array<std::int64_t, block> token{};
};

// to[column] = from[column] + sum_r coefficient[r] factor[r, column], four ranks a pass.
template <class D, class Number>
void low_rank(D d, const Number* from, const float* coefficients, const float* factor, std::int64_t rank,
              std::int64_t stride, std::int64_t columns, float* to) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto pass = [&](auto first, std::int64_t r) {
    const auto u0 = hn::Set(d, coefficients[r]), u1 = hn::Set(d, coefficients[r + 1]),
               u2 = hn::Set(d, coefficients[r + 2]), u3 = hn::Set(d, coefficients[r + 3]);
    const float* f = factor + r * stride;
    for (std::int64_t c = 0; c < columns; c += lanes) {
      auto z = hn::MulAdd(u0, hn::LoadU(d, f + c), load(d, first + c));
      auto y = hn::Mul(u1, hn::LoadU(d, f + stride + c));
      z = hn::MulAdd(u2, hn::LoadU(d, f + 2 * stride + c), z);
      y = hn::MulAdd(u3, hn::LoadU(d, f + 3 * stride + c), y);
      hn::StoreU(hn::Add(z, y), d, to + c);
    }
  };
  std::int64_t r = 0;
  if (rank >= 4) {
    pass(from, 0);
    for (r = 4; r + 4 <= rank; r += 4) pass(static_cast<const float*>(to), r);
  } else {
    for (std::int64_t c = 0; c < columns; c += lanes) hn::StoreU(load(d, from + c), d, to + c);
  }
  for (; r < rank; ++r)
    for (std::int64_t c = 0; c < columns; c += lanes)
      hn::StoreU(hn::MulAdd(hn::Set(d, coefficients[r]), hn::LoadU(d, factor + r * stride + c),
                            hn::LoadU(d, to + c)),
                 d, to + c);
}

// sums[t, r] += sum over columns of rows[t, column] factor[r, column]; four ranks at a time.
template <class D>
void add_products(D d, const Block& tokens, const float* rows, const float* factor, std::int64_t rank,
                  std::int64_t stride, std::int64_t columns, float* sums, std::int64_t sums_stride) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto add = [&](std::int64_t t, std::int64_t r, V<D> sum) {
    sums[tokens.token[static_cast<std::size_t>(t)] * sums_stride + r] += hn::GetLane(hn::SumOfLanes(d, sum));
  };
  std::int64_t r = 0;
  for (; r + 4 <= rank; r += 4) {
    const float* f = factor + r * stride;
    // Two tokens share what is loaded of the factor; an odd one's partner is itself, and not added.
    for (std::int64_t t = 0; t < tokens.count; t += 2) {
      const std::int64_t other = std::min(t + 1, tokens.count - 1);
      const float *x = rows + t * tile_columns, *y = rows + other * tile_columns;
      auto x0 = hn::Zero(d), x1 = x0, x2 = x0, x3 = x0, y0 = x0, y1 = x0, y2 = x0, y3 = x0;
      for (std::int64_t c = 0; c < columns; c += lanes) {
        const auto xc = hn::LoadU(d, x + c), yc = hn::LoadU(d, y + c);
        const auto f0 = hn::LoadU(d, f + c), f1 = hn::LoadU(d, f + stride + c),
                   f2 = hn::LoadU(d, f + 2 * stride + c), f3 = hn::LoadU(d, f + 3 * stride + c);
        x0 = hn::MulAdd(xc, f0, x0), y0 = hn::MulAdd(yc, f0, y0);
        x1 = hn::MulAdd(xc, f1, x1), y1 = hn::MulAdd(yc, f1, y1);
        x2 = hn::MulAdd(xc, f2, x2), y2 = hn::MulAdd(yc, f2, y2);
        x3 = hn::MulAdd(xc, f3, x3), y3 = hn::MulAdd(yc, f3, y3);
      }
      add(t, r, x0), add(t, r + 1, x1), add(t, r + 2, x2), add(t, r + 3, x3);
      if (other != t) add(other, r, y0), add(other, r + 1, y1), add(other, r + 2, y2), add(other, r + 3, y3);
    }
  }
  for (; r < rank; ++r) {
    for (std::int64_t t = 0; t < tokens.count; ++t) {
      auto sum = hn::Zero(d);
      for (std::int64_t c = 0; c < columns; c += lanes)
        sum =
            hn::MulAdd(hn::LoadU(d, rows + t * tile_columns + c), hn::LoadU(d, factor + r * stride + c), sum);
      add(t, r, sum);
    }
  }
}

// factor[r, column] += sum over the block's tokens of coefficient[t, r] rows[t, column]. Tokens that the
// block lacks have coefficient 0.
template <class D>
void add_outer(D d, const Block& tokens, const float* rows, const float* coefficients,
               std::int64_t coefficient_stride, std::int64_t rank, float* factor, std::int64_t stride,
               std::int64_t columns) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto weight = [&](std::int64_t t, std::int64_t r) {
    return hn::Set(d, t < tokens.count
                          ? coefficients[tokens.token[static_cast<std::size_t>(t)] * coefficient_stride + r]
                          : 0.0f);
  };
  for (std::int64_t r = 0; r < rank; r += 2) {
    const std::int64_t second = std::min(r + 1, rank - 1);
    const auto w0 = weight(0, r), w1 = weight(1, r), w2 = weight(2, r), w3 = weight(3, r);
    const auto v0 = weight(0, second), v1 = weight(1, second), v2 = weight(2, second), v3 = weight(3, second);
    float *f = factor + r * stride, *g = factor + second * stride;
    for (std::int64_t c = 0; c < columns; c += lanes) {
      const auto x0 = hn::LoadU(d, rows + c), x1 = hn::LoadU(d, rows + tile_columns + c),
                 x2 = hn::LoadU(d, rows + 2 * tile_columns + c),
                 x3 = hn::LoadU(d, rows + 3 * tile_columns + c);
      const auto a = hn::MulAdd(w0, x0, hn::MulAdd(w1, x1, hn::LoadU(d, f + c)));
      const auto b = hn::MulAdd(w2, x2, hn::Mul(w3, x3));
      hn::StoreU(hn::Add(a, b), d, f + c);
      if (second == r) continue;
      const auto e = hn::MulAdd(v0, x0, hn::MulAdd(v1, x1, hn::LoadU(d, g + c)));
      const auto h = hn::MulAdd(v2, x2, hn::Mul(v3, x3));
      hn::StoreU(hn::Add(e, h), d, g + c);
    }
  }
}

// One expert's part of a tile in the forward pass.
template <class D, class Number>
void forward_block(D d, const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out,
                   std::int64_t expert, const Block& tokens, std::int64_t first, std::int64_t columns) {
  const auto [n, F, E, R] = in.shape;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN float activations[block * tile_columns];
  const float* up_B = in.up_B + expert * R * F + first;
  for (std::int64_t t = 0; t < tokens.count; ++t) {
    const std::int64_t token = tokens.token[static_cast<std::size_t>(t)];
    const auto share = hn::Set(d, in.gate[token * E + expert]);
    const float* u = in.reduced + (token * E + expert) * R;
    float* row = activations + t * tile_columns;
    low_rank(d, in.hidden + token * F + first, u, up_B, R, F, columns, row);
    Number* mixed = out.mixed + token * F + first;
    for (std::int64_t c = 0; c < columns; c += lanes) {
      const auto a = hn::Mul(share, gelu(d, hn::LoadU(d, row + c)).value);
      hn::StoreU(a, d, row + c);
      store(d, hn::Add(load(d, mixed + c), a), mixed + c);
    }
  }
  add_products(d, tokens, activations, in.down_A + expert * R * F + first, R, F, columns,
               out.weighted + expert * R, E * R);
}

// One expert's part of a tile in the backward pass.
template <class D, class Number>
void backward_block(D d, const MixtureInputs<Number>& in, const MixtureGradients<Number>& g,
                    std::int64_t expert, const Block& tokens, std::int64_t first, std::int64_t columns) {
  const auto [n, F, E, R] = in.shape;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN float d_before[block * tile_columns];
  HWY_ALIGN float activations[block * tile_columns];
  // The rows of tokens that the block lacks are read, with weight 0.
  for (std::int64_t t = tokens.count; t < block; ++t)
    for (float* rows : {d_before, activations})
      std::fill(rows + t * tile_columns, rows + t * tile_columns + columns, 0.0f);
  const float* up_B = in.up_B + expert * R * F + first;
  const float* down_A = in.down_A + expert * R * F + first;
  for (std::int64_t t = 0; t < tokens.count; ++t) {
    const std::int64_t token = tokens.token[static_cast<std::size_t>(t)];
    const auto share = hn::Set(d, in.gate[token * E + expert]);
    const float* u = in.reduced + (token * E + expert) * R;
    const float* d_w = g.d_weighted + (token * E + expert) * R;
    float *row = activations + t * tile_columns, *d_row = d_before + t * tile_columns;
    low_rank(d, in.hidden + token * F + first, u, up_B, R, F, columns, row);
    low_rank(d, g.d_mixed + token * F + first, d_w, down_A, R, F, columns, d_row);
    auto d_share = hn::Zero(d);
    for (std::int64_t c = 0; c < columns; c += lanes) {
      const Gelu<D> a = gelu(d, hn::LoadU(d, row + c));
      const auto d_a = hn::LoadU(d, d_row + c);
      d_share = hn::MulAdd(d_a, a.value, d_share);
      const auto d_z = hn::Mul(hn::Mul(d_a, share), a.slope);
      hn::StoreU(d_z, d, d_row + c);
      hn::StoreU(hn::Mul(share, a.value), d, row + c);
      Number* d_hidden = g.d_hidden + token * F + first + c;
      store(d, hn::Add(load(d, d_hidden), d_z), d_hidden);
    }
    if (g.d_gate != nullptr) g.d_gate[token * E + expert] += hn::GetLane(hn::SumOfLanes(d, d_share));
  }
  add_products(d, tokens, d_before, up_B, R, F, columns, g.d_reduced + expert * R, E * R);
  if (g.d_up_B != nullptr)
    add_outer(d, tokens, d_before, in.reduced + expert * R, E * R, R, g.d_up_B + expert * R * F + first, F,
              columns);
  if (g.d_down_A != nullptr)
    add_outer(d, tokens, activations, g.d_weighted + expert * R, E * R, R,
              g.d_down_A + expert * R * F + first, F, columns);
}

// Calls visit(d, expert, block, first column, columns) for every part of the rectangle of tokens and columns
// that an expert is active in; whole vectors first, then what is left of a row one column at a time.
template <class Number, class Visit>
void for_each_block(const MixtureInputs<Number>& in, std::int64_t token_begin, std::int64_t token_end,
                    std::int64_t column_begin, std::int64_t column_end, const Visit& visit) {
  const hn::ScalableTag<float> wide;
  const hn::CappedTag<float, 1> narrow;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(wide));
  const auto visit_columns = [&](std::int64_t expert, const Block& tokens, std::int64_t first,
                                 std::int64_t columns) {
    const std::int64_t whole = columns / lanes * lanes;
    if (whole > 0) visit(wide, expert, tokens, first, whole);
    if (whole < columns) visit(narrow, expert, tokens, first + whole, columns - whole);
  };
  for (std::int64_t first = column_begin; first < column_end; first += tile_columns) {
    const std::int64_t columns = std::min(tile_columns, column_end - first);
    for (std::int64_t tile = token_begin; tile < token_end; tile += tile_tokens) {
      const std::int64_t tile_end = std::min(tile + tile_tokens, token_end);
      for (std::int64_t expert = 0; expert < in.shape.experts; ++expert) {
        Block tokens;
        for (std::int64_t token = tile; token < tile_end; ++token) {
          if (in.gate[token * in.shape.experts + expert] == 0.0f) continue;
          tokens.token[static_cast<std::size_t>(tokens.count++)] = token;
          if (tokens.count < block) continue;
          visit_columns(expert, tokens, first, columns);
          tokens.count = 0;
        }
        if (tokens.count > 0) visit_columns(expert, tokens, first, columns);
      }
    }
  }
}

template <class Number>
void forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out, std::int64_t begin,
             std::int64_t end) {
  const auto [n, F, E, R] = in.shape;
  std::fill(out.mixed + begin * F, out.mixed + end * F, Number{});
  std::fill(out.weighted + begin * E * R, out.weighted + end * E * R, 0.0f);
  for_each_block(in, begin, end, 0, F, [&](auto d, auto... part) { forward_block(d, in, out, part...); });
}

template <class Number>
void backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients, std::int64_t begin,
              std::int64_t end) {
  const auto [n, F, E, R] = in.shape;
  for (std::int64_t token = 0; token < n; ++token)
    std::fill(gradients.d_hidden + token * F + begin, gradients.d_hidden + token * F + end, Number{});
  for (float* factor : {gradients.d_up_B, gradients.d_down_A})
    for (std::int64_t row = 0; row < E * R && factor != nullptr; ++row)
      std::fill(factor + row * F + begin, factor + row * F + end, 0.0f);
  for_each_block(in, 0, n, begin, end,
                 [&](auto d, auto... part) { backward_block(d, in, gradients, part...); });
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
