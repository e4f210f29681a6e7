// Cross entropy over the vocabulary in chunks of tokens: logits take the same memory whatever the batch.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::model {

/// `weight` (float32 scalar above 0, which gets no gradient; undefined: 1) times the mean next-token cross
/// entropy in nats (float32 scalar) over the tokens with a target. hidden [n, C] float32 or bfloat16; head
/// [V, C] as it is stored, or in the precision of `hidden` where it is tracked; targets [n] int64, negative
/// where there is none. The forward pass makes the gradients of `hidden` and, if it is tracked, of `head`
/// along with the loss. Logits are in the precision of `hidden`, the softmax is float32.
[[nodiscard]] at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& head,
                                       const at::Tensor& targets, const at::Tensor& weight = {});

/// The loss of each token [n], float32, 0 where there is no target; without gradients: for evaluation.
[[nodiscard]] at::Tensor cross_entropy_of_tokens(const at::Tensor& hidden, const at::Tensor& head,
                                                 const at::Tensor& targets);

}  // namespace comigs::model
