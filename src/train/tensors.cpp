#include "tensors.hpp"

#include <ATen/ATen.h>

namespace comigs::train {

BatchTensors empty_batch(std::int64_t sequences, std::int64_t context, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return {.tokens = at::empty({sequences, context}, options),
          .targets = at::empty({sequences * context}, options),
          .instruction = at::empty({sequences}, options),
          .category = at::empty({sequences}, options)};
}

void fill(const BatchTensors& tensors, data::Batch& batch) {
  const auto copy = [](const at::Tensor& to, std::vector<std::int64_t>& numbers) {
    const at::Tensor host = at::from_blob(numbers.data(), to.sizes(), at::kLong);
    // From pinned memory the copy is queued: this thread goes on to prepare what the device does next.
    to.copy_(to.is_cpu() ? host : host.pin_memory(), true);
  };
  copy(tensors.tokens, batch.tokens);
  copy(tensors.targets, batch.targets);
  copy(tensors.instruction, batch.instruction);
  copy(tensors.category, batch.category);
}

BatchTensors to_tensors(data::Batch& batch, const at::Device& device) {
  BatchTensors tensors = empty_batch(batch.sequences, batch.context, device);
  fill(tensors, batch);
  return tensors;
}

}  // namespace comigs::train
