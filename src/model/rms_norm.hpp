// Root-mean-square norm with a frozen weight.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::model {

/// x [.., C] weight / sqrt(mean(x^2) + epsilon) along the last dimension, in the precision of x, arithmetic
/// in float32; of x and one number a row is all that the backward pass needs. Differentiable in x; by
/// LibTorch's own operations, which keep more, on a GPU and where the weight is tracked.
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon);

}  // namespace comigs::model
