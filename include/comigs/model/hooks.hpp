// Where a frozen network lets an adapter in. What is not overridden is the bare network; a family calls these
// and knows nothing of what is trained.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comigs/model/architecture.hpp"
#include "comigs/model/norm.hpp"

namespace comigs::model {

/// A frozen projection: x matrix + bias. The matrix [in, out] in the precision that it is stored in, maybe a
/// view of one that lies there as [out, in]; the bias [out] in the activations', undefined where there is
/// none.
struct Weight {
  at::Tensor matrix, bias;
};

/// A frozen matrix for products in a precision: as it is stored where that is the same, else a copy.
[[nodiscard]] at::Tensor in_precision(const at::Tensor& matrix, at::ScalarType type);

/// x matrix + bias in the precision of x, differentiable in x, and in matrix and bias where one of them is
/// tracked.
[[nodiscard]] at::Tensor project(const at::Tensor& x, const Weight& weight);

/// The frozen MLP of a layer: y = activation(x up_s + up_bias_s for each s) down + down_bias.
struct FrozenMlp {
  Activation activation = Activation::gelu_tanh;
  std::vector<Weight> up;  ///< [C, F] each
  Weight down;             ///< [F, C]
};

/// How many sequences a batch has, and how long they are: B and T; the position of the first token of each.
struct Sequences {
  std::int64_t count = 0, length = 0, first = 0;
};

/// Queries [B, heads, T, head size], keys and values [B, key/value heads, T, head size], or more of these
/// from earlier tokens.
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

  /// By how much the positions of a layer's tokens are shifted, for what stands in front of them; those of
  /// the first layer are what the embedding has.
  [[nodiscard]] virtual std::int64_t shift(std::size_t layer) const;
  /// Told of the stream [B T, C] as it enters a layer.
  virtual void enter(std::size_t layer, const ResidualStream& stream, const Sequences& sequences);
  /// [n, in] -> [n, out]; `site`: which of Architecture::attention.
  [[nodiscard]] virtual at::Tensor project(std::size_t layer, std::size_t site, const at::Tensor& x,
                                           const Weight& weight);
  /// Causal attention: [B, heads, T, head size]. Keys and values are of the same T tokens or, where T = 1,
  /// also of all before it.
  [[nodiscard]] virtual at::Tensor attend(std::size_t layer, const Heads& heads);
  /// What else reads the MLP block's input, a router [E, C] float32, or undefined; the norm in front of the
  /// block multiplies by it.
  [[nodiscard]] virtual at::Tensor router(std::size_t layer);
  /// The MLP block: [n, C] -> [n, C]; `read` is of `router`.
  [[nodiscard]] virtual at::Tensor mlp(std::size_t layer, const Normed& x, const FrozenMlp& mlp);
};

inline constexpr const char* gelu_approximation = "tanh";  ///< of Activation::gelu_tanh

/// The activation of what the up projections gave, each [n, F]; differentiable.
[[nodiscard]] at::Tensor activate(Activation activation, const std::vector<at::Tensor>& hidden);

/// The MLP block alone, differentiable in everything (pretraining).
[[nodiscard]] at::Tensor plain_mlp(const at::Tensor& x, const FrozenMlp& mlp);

}  // namespace comigs::model
