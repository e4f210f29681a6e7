// Memory of a card, its clock, and how far its numbers are from the host's.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

#include "number.hpp"

namespace comigs::kernels {

inline void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw std::runtime_error(fmt::format("{}: {}", what, cudaGetErrorString(code)));
}

/// Numbers on the card, begun as a copy of the host's.
template <class T>
class OnCard {
 public:
  explicit OnCard(const std::vector<T>& numbers) : count_(numbers.size()) {
    check(cudaMalloc(&memory_, std::max<std::size_t>(bytes(), 1)), "cudaMalloc");
    set(numbers);
  }
  explicit OnCard(std::size_t count) : OnCard(std::vector<T>(count)) {}
  ~OnCard() { static_cast<void>(cudaFree(memory_)); }
  OnCard(const OnCard&) = delete;
  OnCard& operator=(const OnCard&) = delete;

  [[nodiscard]] T* data() { return static_cast<T*>(memory_); }
  void set(const std::vector<T>& numbers) {
    check(cudaMemcpy(memory_, numbers.data(), bytes(), cudaMemcpyHostToDevice), "copy to the card");
  }
  /// Waits for all that is queued.
  [[nodiscard]] std::vector<T> on_host() const {
    check(cudaDeviceSynchronize(), "a kernel");
    std::vector<T> numbers(count_);
    check(cudaMemcpy(numbers.data(), memory_, bytes(), cudaMemcpyDeviceToHost), "copy from the card");
    return numbers;
  }

 private:
  [[nodiscard]] std::size_t bytes() const { return count_ * sizeof(T); }

  std::size_t count_;
  void* memory_ = nullptr;
};

/// Of one launch, the mean of `repeats` that are queued one behind the other.
template <class Launch>
double milliseconds(const Launch& launch, int repeats = 20) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  check(cudaEventRecord(begin, nullptr), "cudaEventRecord");
  for (int i = 0; i < repeats; ++i) launch();
  check(cudaEventRecord(end, nullptr), "cudaEventRecord");
  check(cudaEventSynchronize(end), "a kernel");
  float all = 0.0F;
  check(cudaEventElapsedTime(&all, begin, end), "cudaEventElapsedTime");
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  return static_cast<double>(all) / repeats;
}

inline double as_double(double number) { return number; }
inline double as_double(float number) { return static_cast<double>(number); }
inline double as_double(Bfloat16 number) { return static_cast<double>(to_float(number)); }
inline double as_double(std::uint8_t number) { return number; }

/// The greatest difference, relative to the number and, as sums may cancel, to the mean size of all; infinite
/// where a number is not finite.
template <class T>
double worst_difference(const std::vector<T>& found, const std::vector<T>& expected) {
  double typical = 0.0, worst = 0.0;
  for (const T number : expected)
    typical += std::abs(as_double(number)) / static_cast<double>(expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double a = as_double(found[i]), b = as_double(expected[i]);
    if (!std::isfinite(a) || !std::isfinite(b)) return std::numeric_limits<double>::infinity();
    if (a != b) worst = std::max(worst, std::abs(a - b) / (std::abs(b) + typical));
  }
  return worst;
}

/// The root mean square of the differences by that of what is expected: of sums whose terms are rounded.
inline double mean_difference(const std::vector<float>& found, const std::vector<float>& expected) {
  double apart = 0.0, size = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    apart += std::pow(as_double(found[i]) - as_double(expected[i]), 2);
    size += std::pow(as_double(expected[i]), 2);
  }
  if (!std::isfinite(apart)) return std::numeric_limits<double>::infinity();
  return apart == 0.0 ? 0.0 : std::sqrt(apart / size);
}

}  // namespace comigs::kernels
