// What a norm divides by, compiled for the CPU and for CUDA from this one text.
#pragma once

#include <limits>

#include "comigs/kernels/norm.hpp"
#include "number.hpp"

namespace comigs::kernels {

// 1 / sqrt(squares / C + epsilon). Of squares that overflow NaN, which somebody will see: 0 would make any
// row one of zeros.
COMIGS_HOST_DEVICE inline float inverse_deviation(float squares, const NormShape& shape, float epsilon) {
  if (!(squares < std::numeric_limits<float>::infinity())) return std::numeric_limits<float>::quiet_NaN();
  return 1.0f / std::sqrt(squares / static_cast<float>(shape.width) + epsilon);
}

}  // namespace comigs::kernels
