// The mixture of LoRA experts around one frozen MLP block: both frozen products run once, whatever the number
// of experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

/// The LoRA factors of all E experts of a layer side by side; S up projections. Those on the model's width in
/// the activations' precision, for products, and gamma times what they are; those on the inner width in
/// float32, as the kernels read them.
struct ExpertFactors {
  at::Tensor up_A;    ///< [S E R, C]
  at::Tensor up_B;    ///< [S E, R, F]: of each its transpose
  at::Tensor down_A;  ///< [E, R, F]
  at::Tensor down_B;  ///< [C, E R]
};

/// y [n, C] = sum_i g_i expert_i(x) with expert_i(x) = a_i down + down_bias + (a_i A'_i^T) B'_i^T and
/// a_i = activation(x up_s + up_bias_s + (x A_si^T) B_si^T for each s). Because the down projection is
/// linear, this is one product with each up_s, E activations, one product of their mixture with `down`,
/// low-rank terms, and down_bias times the sum of the token's gates. x [n, C] in the activations' precision;
/// gate [n, E] float32; gate_sum [n, 1] float32, undefined where it is 1. Differentiable in x, gate, gate_sum
/// and the factors; the activations are not kept but computed again in the backward pass. No gradient is made
/// for what does not ask for one.
[[nodiscard]] at::Tensor mixture_mlp(const at::Tensor& x, const at::Tensor& gate, const model::FrozenMlp& mlp,
                                     const ExpertFactors& factors, const at::Tensor& gate_sum = {});

}  // namespace comigs::adapter
