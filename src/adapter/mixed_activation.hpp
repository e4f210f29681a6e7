// The part of a mixture between its frozen products: activations of all experts, mixed, and what their
// low-rank parts take from them.
#pragma once

#include <ATen/core/Tensor.h>

#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

/// hidden [S n, F] = x up_s + up_bias_s and reduced [n, S E R] = x A_si^T in the model's precision;
/// gate [n, E]; up_B [S E, R, F], down_A [E, R, F]; these three float32, but for
/// `hidden` in float64.
struct ActivationInputs {
  model::Activation activation = model::Activation::gelu_tanh;
  at::Tensor hidden, reduced, gate, up_B, down_A;
};

/// mixed [n, F] = sum_i g_i a_i and weighted [n, E R] = g_i a_i A'_i^T with a_i = activation(hidden_s + u_si
/// B_si^T for each s), in the precision of `hidden`.
struct MixedActivation {
  at::Tensor mixed, weighted;
};

/// The gradients of the inputs; undefined where not asked for.
struct ActivationGradients {
  at::Tensor hidden, reduced, gate, up_B, down_A;
};

struct WantedGradients {
  bool gate = true, up_B = true, down_A = true;
};

/// One fused pass over the activations in host or device memory (float32, bfloat16); in other precisions an
/// expert at a time.
[[nodiscard]] MixedActivation mix_activations(const ActivationInputs& in);
/// Works the activations out again.
[[nodiscard]] ActivationGradients mix_activations_backward(const ActivationInputs& in,
                                                           const at::Tensor& d_mixed,
                                                           const at::Tensor& d_weighted,
                                                           const WantedGradients& wanted);

}  // namespace comigs::adapter
