#include "tensors.hpp"

#include <ATen/ATen.h>

namespace comigs::train {

BatchTensors to_tensors(data::Batch& batch, const at::Device& device) {
  const auto tensor = [&](std::vector<std::int64_t>& numbers, at::IntArrayRef shape) {
    return at::from_blob(numbers.data(), shape, at::kLong).to(device, at::kLong, false, true);
  };
  return {.tokens = tensor(batch.tokens, {batch.sequences, batch.context}),
          .targets = tensor(batch.targets, {batch.sequences * batch.context})};
}

}  // namespace comigs::train
