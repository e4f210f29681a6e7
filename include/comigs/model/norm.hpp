// The norms of a network, and the residual stream that they read.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::model {

/// The residual stream x [n, C] in the activations' precision. What a block gives to it may wait until the
/// next norm, which adds it in the pass in which it reads the stream.
struct ResidualStream {
  at::Tensor x, waiting;  ///< `waiting` [n, C], undefined where nothing does

  /// With what waits.
  [[nodiscard]] at::Tensor whole() const;
};

/// The frozen norm of rows: weight [C], in the activations' precision, as the bias [C], undefined where there
/// is none.
struct Norm {
  enum class Kind { layer, root_mean_square };  ///< Ba et al. 2016, Zhang & Sennrich 2019

  Kind kind = Kind::layer;
  at::Tensor weight, bias;
  double epsilon = 1e-5;
};

struct Normed {
  at::Tensor x;     ///< [.., C]
  at::Tensor read;  ///< [n, E] float32: x reader^T; undefined without a reader
};

/// Of the whole stream, which afterwards is a sum in which nothing waits. `reader` [E, C] float32, a router
/// or undefined, reads what comes out. In the precision of the stream, arithmetic in float32; differentiable
/// in the stream and the reader; by LibTorch's own operations, which keep more, in other precisions and where
/// the weight is tracked.
[[nodiscard]] Normed norm(const Norm& norm, ResidualStream& stream, const at::Tensor& reader = {});

/// Of x [.., C] along the last dimension, the same.
[[nodiscard]] at::Tensor norm(const Norm& norm, const at::Tensor& x);

}  // namespace comigs::model
