// How a kernel on a card is told of beside the host's, and the numbers that both are given.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "card_memory.hpp"
#include "comigs/base/random.hpp"

namespace comigs::kernels {

inline constexpr std::int64_t active = 2;  ///< experts of a token

// Sums over all tokens in float32, in another order; two neighbouring bfloat16 numbers.
template <class Number>
inline constexpr double tolerance = std::is_same_v<Number, float> ? 1e-4 : 1.0 / 128;
template <class Number>
inline constexpr const char* precision = std::is_same_v<Number, float> ? "float32" : "bf16";

inline std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

// Of N(0, scale^2), which come again after a million; another draw for each `draw`.
template <class Number = float>
std::vector<Number> normal(std::int64_t count, float scale, std::uint32_t draw) {
  std::vector<float> some(std::min<std::size_t>(size(count), 1'000'003));
  fill_normal(some, scale, {.seed = 1, .round = draw});
  std::vector<Number> numbers(size(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) from_float(some[i % some.size()], numbers[i]);
  return numbers;
}

// What is told of one kernel at one shape.
class Account {
 public:
  static void title() {
    fmt::print("{:36} {:>9} {:>9} {:>8}  {}\n", "kernel", "worst", "ms", "GB/s", "verdict");
  }
  static int wrong() { return wrong_; }

  Account(std::string kernel, double allowed) : kernel_(std::move(kernel)), allowed_(allowed) {}

  // Of an output, by the host and twice by the card.
  template <class T>
  void compare(const std::vector<T>& host, const std::vector<T>& first, const std::vector<T>& second) {
    worst_ = std::max(worst_, worst_difference(first, host));
    same_bits_ = same_bits_ && first == second;
  }
  // Of sums: tensor cores round their terms, for activations in bfloat16.
  template <class Number>
  void compare_sums(const std::vector<float>& host, const std::vector<float>& first,
                    const std::vector<float>& second) {
    if constexpr (std::is_same_v<Number, float>) return compare(host, first, second);
    worst_ = std::max(worst_, mean_difference(first, host));
    same_bits_ = same_bits_ && first == second;
  }
  void tell(double ms, double bytes) const {
    const bool right = worst_ <= allowed_ && same_bits_;
    wrong_ += right ? 0 : 1;
    fmt::print("{:36} {:9.1e} {:9.3f} {:8.0f}  {}\n", kernel_, worst_, ms, bytes / ms / 1e6,
               right        ? "ok"
               : same_bits_ ? "WRONG"
                            : "WRONG: other bits in the second run");
    std::fflush(stdout);
  }

 private:
  static inline int wrong_ = 0;
  std::string kernel_;
  double allowed_, worst_ = 0.0;
  bool same_bits_ = true;
};

}  // namespace comigs::kernels
