// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/rms_norm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rms_norm.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

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

template <class Number>
void forward_rows(const RmsNormForward<Number>& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const Number* x = pass.x + row * pass.width;
    Number* y = pass.y + row * pass.width;
    const float squares = sum_of_row(pass.width, [&](auto d, std::int64_t c) {
      const auto value = load(d, x + c);
      return hn::Mul(value, value);
    });
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(pass.width) + pass.epsilon);
    pass.inverse[row] = inverse;
    in_vectors(pass.width, [&](auto d, Columns columns) {
      const auto factor = hn::Set(d, inverse);
      for (std::int64_t c = columns.begin; c < columns.end; c += static_cast<std::int64_t>(hn::Lanes(d)))
        store(d, hn::Mul(hn::Mul(load(d, x + c), factor), load(d, pass.weight + c)), y + c);
    });
  }
}

// d_x = r (d_y weight) - x r^3 mean(d_y weight x).
template <class Number>
void backward_rows(const RmsNormBackward<Number>& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const Number *x = pass.x + row * pass.width, *d_y = pass.d_y + row * pass.width;
    Number* d_x = pass.d_x + row * pass.width;
    const auto scaled = [&](auto d, std::int64_t c) {
      return hn::Mul(load(d, d_y + c), load(d, pass.weight + c));
    };
    const float product =
        sum_of_row(pass.width, [&](auto d, std::int64_t c) { return hn::Mul(scaled(d, c), load(d, x + c)); });
    const float r = pass.inverse[row], along = r * r * r * product / static_cast<float>(pass.width);
    in_vectors(pass.width, [&](auto d, Columns columns) {
      const auto factor = hn::Set(d, r), back = hn::Set(d, along);
      for (std::int64_t c = columns.begin; c < columns.end; c += static_cast<std::int64_t>(hn::Lanes(d)))
        store(d, hn::NegMulAdd(load(d, x + c), back, hn::Mul(scaled(d, c), factor)), d_x + c);
    });
  }
}

void ForwardFloat(const RmsNormForward<float>& pass, std::int64_t begin, std::int64_t end) {
  forward_rows(pass, begin, end);
}
void ForwardBfloat16(const RmsNormForward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  forward_rows(pass, begin, end);
}
void BackwardFloat(const RmsNormBackward<float>& pass, std::int64_t begin, std::int64_t end) {
  backward_rows(pass, begin, end);
}
void BackwardBfloat16(const RmsNormBackward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
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
void rms_norm_forward(const RmsNormForward<float>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(pass, begin, end);
}
template <>
void rms_norm_forward(const RmsNormForward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardBfloat16)(pass, begin, end);
}
template <>
void rms_norm_backward(const RmsNormBackward<float>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(pass, begin, end);
}
template <>
void rms_norm_backward(const RmsNormBackward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardBfloat16)(pass, begin, end);
}

}  // namespace comigs::kernels
#endif
