// Frozen weights: where the numbers of a base model come from.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "comigs/model/architecture.hpp"

namespace comigs::model {

/// Gives the tensor of a weight, in the shape, precision and place that the model is to use.
using WeightSource = std::function<at::Tensor(const WeightSpec&)>;

/// The weights of `folder`/model.safetensors. A weight that lies there in the precision `dtype` is a
/// read-only view of the mapped file on the CPU (all ranks of a node share its pages) or one upload on a GPU;
/// others are converted. Names are accepted with and without the prefix "transformer.". The returned source
/// throws DataError naming the file, the tensor, what was found and what was expected.
[[nodiscard]] WeightSource open_weights(const std::filesystem::path& folder, at::ScalarType dtype,
                                        const at::Device& device);

/// Whether the folder's weights lie in the precision `dtype` and at multiples of their element size, so that
/// they can be used as they are mapped. Throws DataError.
[[nodiscard]] bool can_be_mapped(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                                 at::ScalarType dtype);

/// Writes `folder`/model.safetensors, atomically, with the tensors that `weights` gives in the precision it
/// gives them in. Throws IoError and whatever the source throws.
void write_weights(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                   const WeightSource& weights);

/// Which file `folder`/model.safetensors is, and in which state: the same text for all processes of this
/// machine that see the same file with the same content. Throws DataError where there is none.
[[nodiscard]] std::string weights_state(const std::filesystem::path& folder);

/// SHA-256 of `folder`/model.safetensors, hexadecimal.
[[nodiscard]] std::string weights_digest(const std::filesystem::path& folder);

}  // namespace comigs::model
