// All frozen weights in one piece of memory, which processes that compute on one GPU can share.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "comigs/model/weights.hpp"

namespace comigs::model {

/// Copies all weights that `weights` gives into one tensor of bytes on `device`: in the precision `dtype`, in
/// the order of `specs`, each at a multiple of 256 bytes. Throws what the source throws.
[[nodiscard]] at::Tensor pack_weights(const std::vector<WeightSpec>& specs, const WeightSource& weights,
                                      at::ScalarType dtype, const at::Device& device);

/// The weights of such a piece, as views of it.
[[nodiscard]] WeightSource packed_weights(const at::Tensor& piece, const std::vector<WeightSpec>& specs,
                                          at::ScalarType dtype);

/// What other processes of this node open a piece on a GPU by (CUDA IPC), once all that was queued on it is
/// done; empty where the system has no such thing. The piece must outlive their use of it.
[[nodiscard]] std::string share(const at::Tensor& piece);

/// A piece of the same specs and precision that another process on this GPU shares; undefined where it cannot
/// be opened.
[[nodiscard]] at::Tensor open_shared(const std::string& handle, const std::vector<WeightSpec>& specs,
                                     at::ScalarType dtype, const at::Device& device);

}  // namespace comigs::model
