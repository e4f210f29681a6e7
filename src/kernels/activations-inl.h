// Activations and their slopes, for one of the instruction sets that Highway compiles.
#if defined(COMIGS_KERNELS_ACTIVATIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMIGS_KERNELS_ACTIVATIONS_INL_H_
#undef COMIGS_KERNELS_ACTIVATIONS_INL_H_
#else
#define COMIGS_KERNELS_ACTIVATIONS_INL_H_
#endif

#include <array>

#include "comigs/kernels/activation.hpp"
#include "vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

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

// Of 1 / (1 + exp(-x)): what is left of one of it is e s, which is also right where s is nearly 1.
template <class D>
struct Sigmoid {
  V<D> s, e;

  HWY_INLINE Sigmoid(D d, V<D> x) {
    // Beyond +-80 it is 0 or 1 to the last bit, and the exponential would overflow.
    const auto bounded = hn::Clamp(x, hn::Set(d, -80.0f), hn::Set(d, 80.0f));
    e = exponential(d, hn::Neg(bounded));
    s = reciprocal(d, hn::Add(hn::Set(d, 1.0f), e));
  }
};

// The value of an activation of `ups` projections, and its slope in each.
template <class D, std::size_t ups>
struct Point {
  V<D> value;
  std::array<V<D>, ups> slope;
};

// gelu(z) = z s with s = sigmoid(2 sqrt(2/pi) (z + 0.044715 z^3)), which is 0.5 z (1 + tanh(...)).
struct GeluTanh {
  static constexpr std::size_t ups = 1;
  template <class D>
  static HWY_INLINE Point<D, ups> at(D d, const std::array<V<D>, ups>& projections) {
    const auto z = projections[0];
    const auto c = hn::Set(d, 1.5957691216057308f), cubic = hn::Set(d, 0.044715f * 1.5957691216057308f);
    const auto square = hn::Mul(z, z);
    const Sigmoid<D> sigmoid(d, hn::Mul(z, hn::MulAdd(cubic, square, c)));
    const auto s = sigmoid.s,
               inner_slope = hn::MulAdd(hn::Set(d, 3.0f * 0.044715f * 1.5957691216057308f), square, c);
    const auto slope = hn::MulAdd(hn::Mul(z, hn::Mul(s, hn::Mul(sigmoid.e, s))), inner_slope, s);
    return {.value = hn::Mul(z, s), .slope = {slope}};
  }
};

// silu(z_0) z_1 with silu(z) = z sigmoid(z).
struct SiluGated {
  static constexpr std::size_t ups = 2;
  template <class D>
  static HWY_INLINE Point<D, ups> at(D d, const std::array<V<D>, ups>& projections) {
    const auto [gate, up] = projections;
    const Sigmoid<D> sigmoid(d, gate);
    const auto silu = hn::Mul(gate, sigmoid.s);
    const auto slope = hn::MulAdd(silu, hn::Mul(sigmoid.e, sigmoid.s), sigmoid.s);
    return {.value = hn::Mul(silu, up), .slope = {hn::Mul(up, slope), silu}};
  }
};

template <class Visit>
void with_activation(Activation activation, const Visit& visit) {
  activation == Activation::silu_gated ? visit(SiluGated()) : visit(GeluTanh());
}

}  // namespace HWY_NAMESPACE
}  // namespace comigs::kernels
HWY_AFTER_NAMESPACE();

#endif
