// What a user's parameters add to a layer: LoRA on a projection, the gate of the experts, the experts around
// an MLP block.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comigs/adapter/mixture.hpp"
#include "comigs/adapter/parameters.hpp"
#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

/// How the tokens of a batch were routed in one layer. Undefined tensors: nothing was routed.
struct LayerRouting {
  /// [n, E] float32: softmax over the top-k, zero elsewhere. Top-1 of several: the probability of the chosen
  /// one in the softmax over all (Fedus et al. 2022), so that the router gets a gradient of the text.
  at::Tensor gate;
  at::Tensor distribution;  ///< [n, E] float32: the softmax that the gate is taken from; sums to 1
  at::Tensor chosen;        ///< [n, E] bool: in the top-k; among equal logits those of the lower experts
  at::Tensor load;  ///< [E] float32: fraction of the tokens that have the expert in their top-k (f of Eq. 7)
  at::Tensor probability;  ///< [E] float32: mean over tokens of the full softmax of the logits (P of Eq. 7)
};

/// x [n, in] W [in, out] + bias + gamma (x A^T) B^T, in the precision of x. W and the bias are frozen and get
/// no gradient.
[[nodiscard]] at::Tensor lora_linear(const at::Tensor& x, const model::Weight& weight, const Lora& lora,
                                     double scale);

/// The gate of each token [n, E] and, where a router decides, what it decided. x [n, C]: the MLP block's own
/// input.
[[nodiscard]] LayerRouting route(const at::Tensor& x, const LayerParameters& parameters,
                                 const UserModel& user_model);

/// The MLP block with the user's experts, of which there is at least one. x [n, C]. `routing`: what `route`
/// gave.
[[nodiscard]] at::Tensor expert_mlp(const at::Tensor& x, const model::FrozenMlp& mlp,
                                    const LayerParameters& parameters, const UserModel& user_model,
                                    LayerRouting& routing);

}  // namespace comigs::adapter
