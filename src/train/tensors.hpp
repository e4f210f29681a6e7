// Batches as tensors on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include "comigs/data/batch.hpp"

namespace comigs::train {

struct BatchTensors {
  at::Tensor tokens;       ///< [B, T] int64
  at::Tensor targets;      ///< [B T] int64
  at::Tensor instruction;  ///< [B] int64, as data::Batch has it
  at::Tensor category;     ///< [B] int64
};

[[nodiscard]] BatchTensors empty_batch(std::int64_t sequences, std::int64_t context,
                                       const at::Device& device);
/// Copies a batch of the tensors' shape into them; on a GPU the copy is queued.
void fill(const BatchTensors& tensors, data::Batch& batch);
[[nodiscard]] BatchTensors to_tensors(data::Batch& batch, const at::Device& device);

}  // namespace comigs::train
