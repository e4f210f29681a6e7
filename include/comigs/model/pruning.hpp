// Which weights of one linear map become zero, and what becomes of those that stay.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "comigs/model/sparsity.hpp"

namespace comigs::model {

/// Which weights go:
///   magnitude  those of the smallest |W| (Han et al. 2015): of the whole matrix;
///   wanda      those of the smallest |W_oi| ||X_i||_2 (Sun et al. 2024, Eq. 1): of each output's row;
///   sparsegpt  those of the smallest W^2 / [H^-1]_ii (Frantar & Alistarh 2023, Algorithm 1), of all rows in
///              blocks of 128 inputs; later weights of a row make up for each that goes.
/// With N:M each chooses in every run of `of` inputs of an output instead.
enum class PruningMethod { magnitude, wanda, sparsegpt };

/// Of `count` weights, how many a share of them is: rounded down.
[[nodiscard]] std::int64_t zeros_of(double share, std::int64_t count);

/// What is known of the inputs X [n, in] of a map; on the host, float64.
struct InputSums {
  at::Tensor squares;      ///< [in], of each input; wanda's
  at::Tensor gram;         ///< X^T X [in, in]; sparsegpt's
  std::int64_t count = 0;  ///< n
};

/// W [out, in] on the host, in any floating precision -> its like, without those that go. Magnitude and
/// wanda leave the bits of the others as they are; sparsegpt computes in float32 (the factor of the inverse
/// Hessian in float64) and rounds once. An input that was always 0 has no say: sparsegpt clears its weights
/// on top of those that go. Its H is 2/n X^T X, dampened by 1 % of the mean of its diagonal as in the
/// authors' experiments. Throws NumericError where the sums are not finite.
[[nodiscard]] at::Tensor pruned(const at::Tensor& matrix, PruningMethod method, const Sparsity& sparsity,
                                const InputSums& inputs = {});

}  // namespace comigs::model
