// A base model whose linear maps lose weights, layer by layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "comigs/model/base_model.hpp"
#include "comigs/model/pruning.hpp"

namespace comigs::model {

/// The linear maps inside a block, attention's projections and the MLP's, in the order in which it uses them.
/// Embeddings, head, norms and biases are none of these.
[[nodiscard]] std::vector<Projection> linear_maps(const Architecture& architecture);

/// Their matrices, layer by layer.
[[nodiscard]] std::vector<std::vector<WeightSpec>> prunable_weights(const Architecture& architecture);

/// How many numbers of a matrix are 0.
[[nodiscard]] std::int64_t count_zeros(const at::Tensor& matrix);

struct Pruning {
  PruningMethod method = PruningMethod::sparsegpt;
  Sparsity sparsity;
};

/// By name every matrix of `prunable_weights`, as it lies in the model's files and in the precision that
/// `stored` gives it in; on the host. The inputs of a layer's maps are those of `tokens` [n, T] int64, on the
/// model's device, behind the layers before it as they are pruned already (Frantar & Alistarh 2023, Sec. 4);
/// within the layer all maps see its dense others. `done`: told of each layer. Throws NumericError.
[[nodiscard]] std::map<std::string, at::Tensor> prune(const BaseModel& base, const WeightSource& stored,
                                                      const at::Tensor& tokens, const Pruning& pruning,
                                                      const std::function<void()>& done);

/// The same by magnitude, which needs neither text nor the network.
[[nodiscard]] std::map<std::string, at::Tensor> prune_by_magnitude(const Architecture& architecture,
                                                                   const WeightSource& stored,
                                                                   const Sparsity& sparsity);

}  // namespace comigs::model
