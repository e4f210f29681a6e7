// AdamW (Loshchilov & Hutter 2019) over a contiguous float32 slice: one pass over values, gradients and both
// moments.
#pragma once

#include <cstddef>
#include <cstdint>

namespace comigs::kernels {

/// A step's constants, with what is the same for every element worked out beforehand.
struct AdamwStep {
  float learning_rate;
  float decay;  ///< 1 - learning_rate * weight_decay: decoupled, applied before the update as in
                ///< torch.optim.AdamW
  float beta1, beta2, epsilon;
  float first_correction;   ///< 1 / (1 - beta1^t)
  float second_correction;  ///< 1 / sqrt(1 - beta2^t)
};

/// `step_number` counts from 1.
[[nodiscard]] AdamwStep adamw_step(double learning_rate, double beta1, double beta2, double epsilon,
                                   double weight_decay, std::int64_t step_number);

/// Pointers to `count` float32 elements each, all in the same memory.
struct AdamwSlice {
  float* values;
  const float* gradients;
  float* first_moments;
  float* second_moments;
  std::size_t count;
};

/// The definition, one element at a time in float64: what the fast versions are tested against.
void adamw_reference(const AdamwSlice& slice, const AdamwStep& step);
/// Vectorised, for host memory.
void adamw_host(const AdamwSlice& slice, const AdamwStep& step);
/// For device memory, queued on `stream` (a cudaStream_t). Throws CommError if it cannot be launched or was
/// not built in.
void adamw_device(const AdamwSlice& slice, const AdamwStep& step, void* stream);

}  // namespace comigs::kernels
