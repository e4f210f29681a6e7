// Each activation at one place, as the device computes it, and the way from its name to its type.
#pragma once

#include "comigs/kernels/activation.hpp"
#include "number.hpp"

namespace comigs::kernels {

// The value, and its slope in each of the projections.
template <int ups>
struct ActivationPoint {
  float value, slope[ups];
};

// gelu(z) = z s with s = sigmoid(2 sqrt(2/pi) (z + 0.044715 z^3)), which is 0.5 z (1 + tanh(...)). Far from
// zero the power is 0 or infinite, and s as it should be.
struct GeluTanh {
  static constexpr int ups = 1;
  COMIGS_HOST_DEVICE static ActivationPoint<ups> at(const float (&z)[ups]) {
    constexpr float c = 1.5957691216057308f, cubic = 0.044715f * c, log2_e = 1.4426950408889634f;
    const float square = z[0] * z[0];
    const float s = reciprocal(1.0f + power_of_two(z[0] * (-cubic * log2_e * square - c * log2_e)));
    return {z[0] * s, {z[0] * (s * (1.0f - s)) * (3.0f * cubic * square + c) + s}};
  }
};

// silu(z) = z s with s = sigmoid(z).
struct SiluGated {
  static constexpr int ups = 2;
  COMIGS_HOST_DEVICE static ActivationPoint<ups> at(const float (&z)[ups]) {
    const float s = reciprocal(1.0f + exponential(-z[0])), silu = z[0] * s;
    return {silu * z[1], {z[1] * (s + silu * (1.0f - s)), silu}};
  }
};

/// visit(GeluTanh()) or what else the activation is called.
template <class Visit>
decltype(auto) with_activation(Activation activation, const Visit& visit) {
  return activation == Activation::silu_gated ? visit(SiluGated()) : visit(GeluTanh());
}

}  // namespace comigs::kernels
