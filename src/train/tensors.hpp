// Batches as tensors on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include "comigs/data/batch.hpp"

namespace comigs::train {

struct BatchTensors {
  at::Tensor tokens;   ///< [B, T] int64
  at::Tensor targets;  ///< [B T] int64
};

[[nodiscard]] BatchTensors to_tensors(data::Batch& batch, const at::Device& device);

}  // namespace comigs::train
