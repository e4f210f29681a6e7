// Where a frozen network lets an adapter in. What is not overridden is the bare network; a family calls these
// and knows nothing of what is trained.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace comigs::model {

/// A frozen projection: x matrix + bias, the matrix [in, out] as it is stored, the bias [out] in the
/// activations' precision.
struct Weight {
  at::Tensor matrix, bias;
};

/// The frozen MLP of a layer, matrices as they are stored, biases in the activations' precision: y = gelu(x
/// up + up_bias) down + down_bias.
struct FrozenMlp {
  at::Tensor up, up_bias;      ///< [C, F], [F]
  at::Tensor down, down_bias;  ///< [F, C], [C]
};

inline constexpr const char* gelu_approximation = "tanh";  ///< "gelu_new" of GPT-2

/// Queries, keys and values, each [B, heads, T, C / heads].
struct Heads {
  at::Tensor queries, keys, values;
};

/// Layers and sites are counted from 0; all is in the activations' precision, and differentiable in x.
class Hooks {
 public:
  Hooks() = default;
  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;
  virtual ~Hooks() = default;

  /// [n, in] -> [n, out]; `site`: which of Architecture::attention.
  [[nodiscard]] virtual at::Tensor project(std::size_t layer, std::size_t site, const at::Tensor& x,
                                           const Weight& weight);
  /// Causal attention: [B, heads, T, C / heads].
  [[nodiscard]] virtual at::Tensor attend(std::size_t layer, const Heads& heads);
  /// The MLP block: [n, C] -> [n, C].
  [[nodiscard]] virtual at::Tensor mlp(std::size_t layer, const at::Tensor& x, const FrozenMlp& mlp);
};

/// The MLP block alone, differentiable in everything (pretraining).
[[nodiscard]] at::Tensor plain_mlp(const at::Tensor& x, const FrozenMlp& mlp);

}  // namespace comigs::model
