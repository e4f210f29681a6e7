// Attention of a layer's heads, for all families and kinds of adapters.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "comigs/model/hooks.hpp"

namespace comigs::model {

/// softmax(scale q k^T) v, in which the queries are those of the last T of S >= T keys, and each sees what is
/// not behind it: [B, heads, T, head size]. `scale`: 1 / sqrt(head size) where it is not given.
/// Differentiable in all three. On a CPU float32 and bfloat16 heads go to our kernels: in between float32,
/// and no tensor of all weights; the rest is LibTorch's.
[[nodiscard]] at::Tensor attention(const Heads& heads, std::optional<double> scale = std::nullopt);

}  // namespace comigs::model
