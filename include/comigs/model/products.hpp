// Matrix products outside autograd, by whichever of LibTorch's two libraries is the faster one.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace comigs::model {

/// Whether float32 products of this processor go to oneDNN: LibTorch's own choice, MKL, takes AVX2 on AMD's
/// processors that have AVX-512, at half the speed. By what the processor is, never by a clock.
[[nodiscard]] bool multiplies_by_onednn();

/// Whether LibTorch has oneDNN on this machine.
[[nodiscard]] bool has_onednn();

/// What follows, by oneDNN: float32 on a CPU, where `has_onednn`.
[[nodiscard]] at::Tensor onednn_product(const at::Tensor& x, const at::Tensor& matrix,
                                        const at::Tensor& bias = {});

/// x matrix (+ bias) of x [n, in], a matrix [in, out] with any strides, the bias [out]; all in one precision,
/// on one device. No gradients are tracked.
[[nodiscard]] at::Tensor product(const at::Tensor& x, const at::Tensor& matrix, const at::Tensor& bias = {});

/// The same, written into `to` [n, out].
void product_to(at::Tensor& to, const at::Tensor& x, const at::Tensor& matrix, const at::Tensor& bias = {});

/// Adds x matrix to what `to` [n, out] has.
void add_product(at::Tensor& to, const at::Tensor& x, const at::Tensor& matrix);

/// x matrix, for what is soon gone: in `room()` [n, out] where the library writes where it is told to, else
/// in memory of its own.
[[nodiscard]] at::Tensor product_in(const std::function<at::Tensor()>& room, const at::Tensor& x,
                                    const at::Tensor& matrix);

}  // namespace comigs::model
