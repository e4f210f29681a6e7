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

// Columns [begin, end) of a row, whole vectors of them.
struct Part {
  std::int64_t begin, end;
};

// visit(d, columns) for the whole vectors of a row, then for what is left of it, a column at a time.
template <class Visit>
void in_parts(std::int64_t count, const Visit& visit) {
  const hn::ScalableTag<float> wide;
  const std::int64_t whole = count - count % static_cast<std::int64_t>(hn::Lanes(wide));
  visit(wide, Part{0, whole});
  visit(hn::CappedTag<float, 1>(), Part{whole, count});
}

// The sum of term(d, c) over the columns.
template <class D, class Term>
float sum_of(D d, Part columns, const Term& term) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a;
  std::int64_t c = columns.begin;
  for (; c + 2 * lanes <= columns.end; c += 2 * lanes) {
    a = hn::Add(a, term(d, c));
    b = hn::Add(b, term(d, c + lanes));
  }
  for (; c < columns.end; c += lanes) a = hn::Add(a, term(d, c));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b)));
}

template <class Term>
float sum_of_row(std::int64_t width, const Term& term) {
  float sum = 0.0f;
  in_parts(width, [&](auto d, Part columns) { sum += sum_of(d, columns, term); });
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
    in_parts(pass.width, [&](auto d, Part columns) {
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
    in_parts(pass.width, [&](auto d, Part columns) {
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
