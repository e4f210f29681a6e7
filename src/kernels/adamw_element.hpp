// The arithmetic of one AdamW element, compiled for the CPU and for CUDA from this one text.
#pragma once

#include <cmath>

#include "comigs/kernels/adamw.hpp"
#include "number.hpp"

namespace comigs::kernels {

template <class Real>
COMIGS_HOST_DEVICE inline void adamw_element(Real& value, Real gradient, Real& first, Real& second,
                                             const AdamwStep& step) {
  const Real one = 1;
  first = step.beta1 * first + (one - step.beta1) * gradient;
  second = step.beta2 * second + (one - step.beta2) * gradient * gradient;
  const Real denominator = std::sqrt(second) * step.second_correction + step.epsilon;
  value = value * step.decay - step.learning_rate * step.first_correction * first / denominator;
}

}  // namespace comigs::kernels
