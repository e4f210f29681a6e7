// In which precision is computed, and where.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

namespace comigs::model {

/// The precision of activations beside frozen weights that are stored in `stored`: the same, except that a
/// CPU without matrix units for bfloat16 multiplies in float32, which it does about twice as fast; the
/// weights stay as they are stored and are widened for one product at a time.
[[nodiscard]] c10::ScalarType activation_type(c10::ScalarType stored, const c10::Device& device);

/// "float32", "bf16": an activation type's name in records and messages.
[[nodiscard]] std::string name_of(c10::ScalarType activations);

/// How a model is computed: the precision of frozen weights, that of what is computed beside them, and
/// whether a GPU does it.
struct Computation {
  c10::ScalarType stored = c10::ScalarType::Float, computed = c10::ScalarType::Float;
  bool on_gpu = false;
};

[[nodiscard]] inline Computation computation(c10::ScalarType stored, const c10::Device& device) {
  return {.stored = stored, .computed = activation_type(stored, device), .on_gpu = device.is_cuda()};
}

}  // namespace comigs::model
