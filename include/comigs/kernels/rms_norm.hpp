// Root-mean-square norm of rows (Zhang & Sennrich 2019) in host memory, forward and backward, each in two
// passes over a row that the first-level cache holds.
#pragma once

#include <cstdint>

namespace comigs::kernels {

/// n rows of C numbers, row-major; Number is float or Bfloat16, arithmetic float32, rounded once at the end.
template <class Number>
struct RmsNormForward {
  std::int64_t rows = 0, width = 0;
  float epsilon = 0.0f;
  const Number* x = nullptr;       ///< [n, C]
  const Number* weight = nullptr;  ///< [C]
  Number* y = nullptr;             ///< [n, C] x weight / sqrt(mean(x^2) + epsilon)
  float* inverse = nullptr;        ///< [n] 1 / sqrt(mean(x^2) + epsilon)
};

template <class Number>
struct RmsNormBackward {
  std::int64_t rows = 0, width = 0;
  const Number* x = nullptr;       ///< [n, C]
  const Number* weight = nullptr;  ///< [C]
  const float* inverse = nullptr;  ///< [n], of the forward pass
  const Number* d_y = nullptr;     ///< [n, C]
  Number* d_x = nullptr;           ///< [n, C]
};

/// Rows [begin, end), so that threads can each take a part.
template <class Number>
void rms_norm_forward(const RmsNormForward<Number>& pass, std::int64_t begin, std::int64_t end);
template <class Number>
void rms_norm_backward(const RmsNormBackward<Number>& pass, std::int64_t begin, std::int64_t end);

}  // namespace comigs::kernels
