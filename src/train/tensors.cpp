#include "tensors.hpp"

#include <ATen/ATen.h>

namespace comigs::train {

BatchTensors to_tensors(data::Batch& batch, const at::Device& device) {
  const auto tensor = [&](std::vector<std::int64_t>& numbers, at::IntArrayRef shape) {
    const at::Tensor host = at::from_blob(numbers.data(), shape, at::kLong);
    if (device.is_cpu()) return host.clone();
    // From pinned memory the copy is queued: this thread goes on to prepare what the device does next.
    return host.pin_memory().to(device, at::kLong, true);
  };
  return {.tokens = tensor(batch.tokens, {batch.sequences, batch.context}),
          .targets = tensor(batch.targets, {batch.sequences * batch.context})};
}

}  // namespace comigs::train
