// How tokens were routed to experts.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::adapter {

/// Of the tokens of a batch, in one layer; of its sequences, in the layer that prompts enter, where the gate
/// is by sequence (`n` is then B, and the gate the softmax over all). Undefined tensors: nothing was routed.
struct LayerRouting {
  at::Tensor logits;  ///< [n, E] float32, of the router
  /// [n, E] float32: softmax over the top-k, zero elsewhere. Top-1 of several: the probability of the chosen
  /// one in the softmax over all (Fedus et al. 2022), so that the router gets a gradient of the text.
  at::Tensor gate;
  at::Tensor distribution;  ///< [n, E] float32: the softmax that the gate is taken from; sums to 1
  /// [n, E] bool: in the top-k, by sequence the largest; among equal logits those of the lower experts.
  at::Tensor chosen;
  at::Tensor load;  ///< [E] float32: fraction of the tokens that have the expert in their top-k (f of Eq. 7)
  at::Tensor probability;  ///< [E] float32: mean over tokens of the full softmax of the logits (P of Eq. 7)
};

}  // namespace comigs::adapter
