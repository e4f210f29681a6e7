// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/norm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm.cpp"
#include <hwy/foreach_target.h>

#include "norm_element.hpp"
#include "vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

template <class Term>
float sum_of_row(std::int64_t width, const Term& term) {
  float sum = 0.0f;
  in_vectors(width, [&](auto d, Columns columns) { sum += sum_of(d, columns, term); });
  return sum;
}

// visit(d, c) for each vector of a row.
template <class Visit>
void over_row(std::int64_t width, const Visit& visit) {
  in_vectors(width, [&](auto d, Columns columns) {
    for (std::int64_t c = columns.begin; c < columns.end; c += static_cast<std::int64_t>(hn::Lanes(d)))
      visit(d, c);
  });
}

template <class Number>
void forward_row(const NormForward<Number>& pass, std::int64_t row) {
  const std::int64_t C = pass.shape.width, E = pass.shape.readers;
  const Number* x = pass.x + row * C;
  if (pass.added != nullptr) {
    const Number* added = pass.added + row * C;
    Number* sum = pass.sum + row * C;
    over_row(C,
             [&](auto d, std::int64_t c) { store(d, hn::Add(load(d, x + c), load(d, added + c)), sum + c); });
    x = sum;
  }
  const auto width = static_cast<float>(C);
  const float mean = pass.shape.centred
                         ? sum_of_row(C, [&](auto d, std::int64_t c) { return load(d, x + c); }) / width
                         : 0.0f;
  const float squares = sum_of_row(C, [&](auto d, std::int64_t c) {
    const auto value = hn::Sub(load(d, x + c), hn::Set(d, mean));
    return hn::Mul(value, value);
  });
  const float inverse = inverse_deviation(squares, pass.shape, pass.epsilon);
  if (pass.shape.centred) pass.mean[row] = mean;
  pass.inverse[row] = inverse;
  Number* y = pass.y + row * C;
  over_row(C, [&](auto d, std::int64_t c) {
    const auto scaled = hn::Mul(hn::Mul(hn::Sub(load(d, x + c), hn::Set(d, mean)), hn::Set(d, inverse)),
                                load(d, pass.weight + c));
    store(d, pass.bias == nullptr ? scaled : hn::Add(scaled, load(d, pass.bias + c)), y + c);
  });
  for (std::int64_t e = 0; e < E; ++e)
    pass.read[row * E + e] = sum_of_row(
        C, [&](auto d, std::int64_t c) { return hn::Mul(load(d, y + c), load(d, pass.reader + e * C + c)); });
}

// With g = (d_y + d_read reader) weight and z = (sum - mean) inverse: inverse (g - mean(g) - z mean(g z)), in
// which mean(g) is for what is centred.
template <class Number>
void backward_row(const NormBackward<Number>& pass, std::int64_t row) {
  const std::int64_t C = pass.shape.width, E = pass.shape.readers;
  const Number *sum = pass.sum + row * C, *d_y = pass.d_y + row * C;
  const float mean = pass.shape.centred ? pass.mean[row] : 0.0f, inverse = pass.inverse[row];
  const float* d_read = pass.d_read + row * E;
  const auto g = [&](auto d, std::int64_t c) {
    auto d_of_y = load(d, d_y + c);
    for (std::int64_t e = 0; e < E; ++e)
      d_of_y = hn::MulAdd(hn::Set(d, d_read[e]), load(d, pass.reader + e * C + c), d_of_y);
    return hn::Mul(d_of_y, load(d, pass.weight + c));
  };
  const auto z = [&](auto d, std::int64_t c) {
    return hn::Mul(hn::Sub(load(d, sum + c), hn::Set(d, mean)), hn::Set(d, inverse));
  };
  float of_g = 0.0f, of_g_z = 0.0f;
  in_vectors(C, [&](auto d, Columns columns) {
    auto all = hn::Zero(d), along = all;
    for (std::int64_t c = columns.begin; c < columns.end; c += static_cast<std::int64_t>(hn::Lanes(d))) {
      const auto value = g(d, c);
      all = hn::Add(all, value);
      along = hn::MulAdd(value, z(d, c), along);
    }
    of_g += hn::GetLane(hn::SumOfLanes(d, all));
    of_g_z += hn::GetLane(hn::SumOfLanes(d, along));
  });
  const auto width = static_cast<float>(C);
  const float level = pass.shape.centred ? of_g / width : 0.0f, along = of_g_z / width;
  const Number* d_sum = pass.d_sum == nullptr ? nullptr : pass.d_sum + row * C;
  over_row(C, [&](auto d, std::int64_t c) {
    const auto back = hn::NegMulAdd(z(d, c), hn::Set(d, along), hn::Sub(g(d, c), hn::Set(d, level)));
    const auto own = hn::Mul(back, hn::Set(d, inverse));
    store(d, d_sum == nullptr ? own : hn::Add(own, load(d, d_sum + c)), pass.d_x + row * C + c);
  });
}

template <class Number>
void forward_rows(const NormForward<Number>& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) forward_row(pass, row);
}
template <class Number>
void backward_rows(const NormBackward<Number>& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) backward_row(pass, row);
}

void ForwardFloat(const NormForward<float>& pass, std::int64_t begin, std::int64_t end) {
  forward_rows(pass, begin, end);
}
void ForwardBfloat16(const NormForward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  forward_rows(pass, begin, end);
}
void BackwardFloat(const NormBackward<float>& pass, std::int64_t begin, std::int64_t end) {
  backward_rows(pass, begin, end);
}
void BackwardBfloat16(const NormBackward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  backward_rows(pass, begin, end);
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
void norm_forward(const NormForward<float>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(pass, begin, end);
}
template <>
void norm_forward(const NormForward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardBfloat16)(pass, begin, end);
}
template <>
void norm_backward(const NormBackward<float>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(pass, begin, end);
}
template <>
void norm_backward(const NormBackward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardBfloat16)(pass, begin, end);
}

}  // namespace comigs::kernels
#endif
