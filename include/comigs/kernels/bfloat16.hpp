// The model's second precision, as the kernels see it.
#pragma once

#include <cstdint>

namespace comigs::kernels {

/// A bfloat16 as its 16 bits: the upper half of a float32.
using Bfloat16 = std::uint16_t;

}  // namespace comigs::kernels
