#include "comigs/kernels/adamw.hpp"

#include "adamw_element.hpp"

// One clone of the loop for each vector width, picked when the program starts. Sanitizers cannot instrument
// the picking.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COMIGS_VECTOR_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define COMIGS_VECTOR_CLONES
#endif

namespace comigs::kernels {

AdamwStep adamw_step(double learning_rate, double beta1, double beta2, double epsilon, double weight_decay,
                     std::int64_t step_number) {
  const auto t = static_cast<double>(step_number);
  return {.learning_rate = static_cast<float>(learning_rate),
          .decay = static_cast<float>(1.0 - learning_rate * weight_decay),
          .beta1 = static_cast<float>(beta1),
          .beta2 = static_cast<float>(beta2),
          .epsilon = static_cast<float>(epsilon),
          .first_correction = static_cast<float>(1.0 / (1.0 - std::pow(beta1, t))),
          .second_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, t)))};
}

void adamw_reference(const AdamwSlice& slice, const AdamwStep& step) {
  for (std::size_t i = 0; i < slice.count; ++i) {
    double value = slice.values[i], first = slice.first_moments[i], second = slice.second_moments[i];
    adamw_element<double>(value, slice.gradients[i], first, second, step);
    slice.values[i] = static_cast<float>(value);
    slice.first_moments[i] = static_cast<float>(first);
    slice.second_moments[i] = static_cast<float>(second);
  }
}

COMIGS_VECTOR_CLONES
void adamw_host(const AdamwSlice& slice, const AdamwStep& step) {
  float* __restrict values = slice.values;
  const float* __restrict gradients = slice.gradients;
  float* __restrict first = slice.first_moments;
  float* __restrict second = slice.second_moments;
  for (std::size_t i = 0; i < slice.count; ++i)
    adamw_element<float>(values[i], gradients[i], first[i], second[i], step);
}

}  // namespace comigs::kernels
