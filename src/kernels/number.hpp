// What a kernel's arithmetic needs to be compiled for the CPU and for CUDA from one text.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "comigs/kernels/bfloat16.hpp"

#ifdef __CUDACC__
#define COMIGS_HOST_DEVICE __host__ __device__
#define COMIGS_DEVICE __device__
#define COMIGS_TEXT(text) #text
#define COMIGS_UNROLL _Pragma("unroll")
#define COMIGS_UNROLL_BY(count) _Pragma(COMIGS_TEXT(unroll count))
#else
#define COMIGS_HOST_DEVICE
#define COMIGS_DEVICE
#define COMIGS_UNROLL
#define COMIGS_UNROLL_BY(count)
#endif

namespace comigs::kernels {

COMIGS_HOST_DEVICE inline float to_float(float number) { return number; }
COMIGS_HOST_DEVICE inline float to_float(Bfloat16 number) {
  const std::uint32_t bits = std::uint32_t{number} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

COMIGS_HOST_DEVICE inline void from_float(float value, float& number) { number = value; }
// To nearest, ties to even.
COMIGS_HOST_DEVICE inline void from_float(float value, Bfloat16& number) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(number) : "f"(value));
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  number = static_cast<Bfloat16>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
#endif
}

// Two, the first in the lower half.
COMIGS_HOST_DEVICE inline std::uint32_t two_bfloat16(float first, float second) {
#ifdef __CUDA_ARCH__
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
#else
  Bfloat16 low, high;
  from_float(first, low);
  from_float(second, high);
  return std::uint32_t{low} | std::uint32_t{high} << 16;
#endif
}

// On the device one instruction each, to a few units in the last place; what is below 2^-126 is 0.
COMIGS_HOST_DEVICE inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}
COMIGS_HOST_DEVICE inline float exponential(float x) { return power_of_two(x * 1.4426950408889634f); }
COMIGS_HOST_DEVICE inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}

}  // namespace comigs::kernels
