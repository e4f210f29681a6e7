// Vectors of float32 from and to either precision, for one of the instruction sets that Highway compiles.
#if defined(COMIGS_KERNELS_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMIGS_KERNELS_VECTORS_INL_H_
#undef COMIGS_KERNELS_VECTORS_INL_H_
#else
#define COMIGS_KERNELS_VECTORS_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "comigs/kernels/bfloat16.hpp"

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

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

// Columns [begin, end) of a row, whole vectors of them.
struct Columns {
  std::int64_t begin, end;
};

// visit(d, columns) for the whole vectors of a row, then for what is left of it, a column at a time.
template <class Visit>
void in_vectors(std::int64_t count, const Visit& visit) {
  const hn::ScalableTag<float> wide;
  const std::int64_t whole = count - count % static_cast<std::int64_t>(hn::Lanes(wide));
  visit(wide, Columns{0, whole});
  visit(hn::CappedTag<float, 1>(), Columns{whole, count});
}

// The sum of term(d, c) over the columns.
template <class D, class Term>
float sum_of(D d, Columns columns, const Term& term) {
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

// exp(x) for x in [-87, 88], to 3e-7 of its value; below, exp(-87); NaN stays NaN. Half as many instructions
// as hn::Exp, which is to the last bit and knows every special case.
template <class D>
V<D> exponential(D d, V<D> x) {
  const hn::RebindToSigned<D> whole;
  const auto bounded =
      hn::Max(hn::Set(d, -87.0f), x);  // in this order: x86 gives the second where one is NaN
  // Adding 1.5 2^23 rounds to a whole number, which then stands in the lowest bits.
  const auto magic = hn::Set(d, 12582912.0f);
  const auto shifted = hn::MulAdd(bounded, hn::Set(d, 1.4426950408889634f), magic);
  const auto r =
      hn::NegMulAdd(hn::Sub(shifted, magic), hn::Set(d, 0.6931471805599453f), bounded);  // |r| < 0.35
  auto sum = hn::MulAdd(hn::Set(d, 1.0f / 720), r, hn::Set(d, 1.0f / 120));
  for (const float coefficient : {1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f})
    sum = hn::MulAdd(sum, r, hn::Set(d, coefficient));
  return hn::BitCast(d, hn::Add(hn::BitCast(whole, sum), hn::ShiftLeft<23>(hn::BitCast(whole, shifted))));
}

}  // namespace HWY_NAMESPACE
}  // namespace comigs::kernels
HWY_AFTER_NAMESPACE();

#endif
