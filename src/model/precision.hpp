// In which precision is computed.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::model {

/// The precision of activations beside frozen weights that are stored in `stored`: the same, except that a
/// CPU without matrix units for bfloat16 multiplies in float32, which it does about twice as fast; the
/// weights stay as they are stored and are widened for one product at a time.
[[nodiscard]] at::ScalarType activation_type(at::ScalarType stored, const at::Device& device);

}  // namespace comigs::model
