// The norm of rows, forward and backward, together with what is beside it in a layer: the sum of the residual
// stream in front, the router that reads what comes out.
#pragma once

#include <cstdint>

namespace comigs::kernels {

/// n rows of C numbers, which E rows of a reader are multiplied with. Centred: LayerNorm (Ba et al. 2016);
/// otherwise RMSNorm (Zhang & Sennrich 2019), whose means are taken to be 0.
struct NormShape {
  std::int64_t rows = 0, width = 0, readers = 0;
  bool centred = false;
};

/// Row-major; Number is float or Bfloat16, arithmetic float32, what is written rounded once.
template <class Number>
struct NormForward {
  NormShape shape;
  float epsilon = 0.0f;
  const Number* x = nullptr;       ///< [n, C]
  const Number* added = nullptr;   ///< [n, C]; null: nothing is added
  const Number* weight = nullptr;  ///< [C]
  const Number* bias = nullptr;    ///< [C]; null: none
  const float* reader = nullptr;   ///< [E, C]
  Number* sum = nullptr;           ///< [n, C] x + added, of which the norm is; null where nothing is added
  Number* y = nullptr;             ///< [n, C] (sum - mean) inverse weight + bias
  float* mean = nullptr;           ///< [n]; null unless centred
  float* inverse = nullptr;        ///< [n] 1 / sqrt(mean((sum - mean)^2) + epsilon)
  float* read = nullptr;           ///< [n, E] y reader^T
};

/// d_ marks the gradient of the loss.
template <class Number>
struct NormBackward {
  NormShape shape;
  const Number* sum = nullptr;     ///< [n, C], of the forward pass, as mean and inverse
  const Number* weight = nullptr;  ///< [C]
  const float* reader = nullptr;   ///< [E, C]
  const float* mean = nullptr;     ///< [n]; null unless centred
  const float* inverse = nullptr;  ///< [n]
  const Number* d_y = nullptr;     ///< [n, C], beside what comes through the reader
  const float* d_read = nullptr;   ///< [n, E]
  const Number* d_sum = nullptr;   ///< [n, C], beside what comes through the norm; null: zero
  Number* d_x = nullptr;           ///< [n, C], of x and of what was added alike
};

/// In host memory. Rows [begin, end), so that threads can each take a part.
template <class Number>
void norm_forward(const NormForward<Number>& pass, std::int64_t begin, std::int64_t end);
template <class Number>
void norm_backward(const NormBackward<Number>& pass, std::int64_t begin, std::int64_t end);

/// For device memory, queued on `stream` (a cudaStream_t). The same bits at every run. Throw CommError if
/// they cannot be launched or were not built in.
template <class Number>
void norm_forward_device(const NormForward<Number>& pass, void* stream);
template <class Number>
void norm_backward_device(const NormBackward<Number>& pass, void* stream);

}  // namespace comigs::kernels
