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

/// The weights of `folder`: of model.safetensors, or of the shards of model.safetensors.index.json. A weight
/// that lies there in the precision `dtype` is a read-only view of the mapped file on the CPU (all ranks of a
/// node share its pages) or one upload on a GPU; others are converted. Names are accepted with and without
/// their prefix. Throws DataError, as the returned source does, naming the file, the tensor,
/// what was found and what was expected.
[[nodiscard]] WeightSource open_weights(const std::filesystem::path& folder, at::ScalarType dtype,
                                        const at::Device& device);

/// The same on the CPU, each weight in the precision that it is stored in.
[[nodiscard]] WeightSource open_weights_as_stored(const std::filesystem::path& folder);

/// Whether the folder's weights lie in the precision `dtype` and at multiples of their element size, so that
/// they can be used as they are mapped. Throws DataError.
[[nodiscard]] bool can_be_mapped(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                                 at::ScalarType dtype);

/// Reads every number of the folder's weights. Throws DataError naming the tensor that has one which is not
/// finite.
void check_finite(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs);

/// Writes `folder`/model.safetensors, atomically, with the tensors that `weights` gives in the precision it
/// gives them in. Throws IoError and whatever the source throws.
void write_weights(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                   const WeightSource& weights);

/// The files that hold the folder's weights: model.safetensors, or its shards in the order of their names.
/// Throws DataError.
[[nodiscard]] std::vector<std::filesystem::path> weight_files(const std::filesystem::path& folder);

/// Which files hold `folder`'s weights, and in which state: the same text for all processes of this machine
/// that see the same files with the same content. Throws DataError where there are none.
[[nodiscard]] std::string weights_state(const std::filesystem::path& folder);

/// SHA-256 of `folder`/model.safetensors, hexadecimal; of a model in shards that of the lines which
/// `sha256sum` prints for them in the order of their names.
[[nodiscard]] std::string weights_digest(const std::filesystem::path& folder);

}  // namespace comigs::model
