// bfloat16 on the wire: the upper half of a float32, rounded to nearest, ties to even. NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace comigs::comm {

[[nodiscard]] inline std::uint16_t to_bfloat16(float value) {
  if (value != value) return 0x7FC0;  // rounding would carry some NaN over to zero
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

[[nodiscard]] inline float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace comigs::comm
