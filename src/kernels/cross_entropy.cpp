// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/cross_entropy.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cross_entropy.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

template <class D, class Number>
float largest(D d, const Number* row, Columns columns) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto a = hn::Set(d, std::numeric_limits<float>::lowest()), b = a;
  std::int64_t c = columns.begin;
  for (; c + 2 * lanes <= columns.end; c += 2 * lanes) {
    a = hn::Max(a, load(d, row + c));
    b = hn::Max(b, load(d, row + c + lanes));
  }
  for (; c < columns.end; c += lanes) a = hn::Max(a, load(d, row + c));
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
}

// The sum of exp(logit - shift). Each is computed once where float32 can keep it in the row's own place.
template <bool keep, class D, class Number>
float sum_of_exponentials(D d, Number* row, Columns columns, float shift) {
  const auto by = hn::Set(d, shift);
  return sum_of(d, columns, [&](D, std::int64_t c) {
    const auto e = exponential(d, hn::Sub(load(d, row + c), by));
    if constexpr (keep) store(d, e, row + c);
    return e;
  });
}

// Softmax, from what sum_of_exponentials kept or else from the logits.
template <class D, class Number>
void normalise(D d, Number* row, Columns columns, float shift, float factor) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto by = hn::Set(d, shift), share = hn::Set(d, factor);
  for (std::int64_t c = columns.begin; c < columns.end; c += lanes) {
    auto e = load(d, row + c);
    if constexpr (!std::is_same_v<Number, float>) e = exponential(d, hn::Sub(e, by));
    store(d, hn::Mul(e, share), row + c);
  }
}

// Each pass after the first finds the row in the second-level cache.
template <class Number>
void row_with_target(const LogitRows<Number>& rows, std::int64_t token) {
  const std::int64_t target = rows.targets[token];
  Number* row = rows.logits + token * rows.stride;
  const float at_target = hn::GetLane(load(hn::CappedTag<float, 1>(), row + target));
  float shift = std::numeric_limits<float>::lowest(), sum = 0.0f;
  in_vectors(rows.vocabulary,
             [&](auto d, Columns columns) { shift = std::max(shift, largest(d, row, columns)); });
  in_vectors(rows.vocabulary, [&](auto d, Columns columns) {
    if (rows.gradient && std::is_same_v<Number, float>)
      sum += sum_of_exponentials<true>(d, row, columns, shift);
    else
      sum += sum_of_exponentials<false>(d, row, columns, shift);
  });
  rows.losses[token] = std::log(sum) + (shift - at_target);
  if (!rows.gradient) return;
  in_vectors(rows.vocabulary,
             [&](auto d, Columns columns) { normalise(d, row, columns, shift, 1.0f / sum); });
  const hn::CappedTag<float, 1> one;
  const float softmax = std::exp(at_target - shift) / sum;
  store(one, hn::Set(one, softmax - 1.0f), row + target);
}

template <class Number>
void all_rows(const LogitRows<Number>& rows, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = begin; token < end; ++token) {
    if (rows.targets[token] >= 0) {
      row_with_target(rows, token);
      continue;
    }
    rows.losses[token] = 0.0f;
    if (rows.gradient) std::fill_n(rows.logits + token * rows.stride, rows.vocabulary, Number{});
  }
}

void RowsFloat(const LogitRows<float>& rows, std::int64_t begin, std::int64_t end) {
  all_rows(rows, begin, end);
}
void RowsBfloat16(const LogitRows<Bfloat16>& rows, std::int64_t begin, std::int64_t end) {
  all_rows(rows, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace comigs::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comigs::kernels {

HWY_EXPORT(RowsFloat);
HWY_EXPORT(RowsBfloat16);

template <>
void cross_entropy_rows(const LogitRows<float>& rows, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(RowsFloat)(rows, begin, end);
}
template <>
void cross_entropy_rows(const LogitRows<Bfloat16>& rows, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(RowsBfloat16)(rows, begin, end);
}

}  // namespace comigs::kernels
#endif
