// Comparisons of tensors, and tensors to compare.
#pragma once

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "comigs/base/random.hpp"

namespace comigs::test {

/// Independent draws from N(0, deviation^2); `number` names the draw.
inline at::Tensor normal(at::IntArrayRef shape, std::uint32_t number, double deviation = 1.0,
                         at::ScalarType dtype = at::kFloat) {
  std::vector<float> numbers(static_cast<std::size_t>(c10::multiply_integers(shape)));
  fill_normal(numbers, static_cast<float>(deviation), {.seed = 12345, .round = number});
  return at::from_blob(numbers.data(), shape, at::kFloat).to(dtype, false, true);
}

/// The largest difference in units of the largest element that is expected.
inline double relative_difference(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor a = found.detach().to(at::kDouble), b = expected.detach().to(at::kDouble);
  if (a.numel() == 0) return 0.0;
  return (a - b).abs().max().item<double>() / std::max(b.abs().max().item<double>(), 1e-300);
}

inline boost::test_tools::assertion_result close(const at::Tensor& found, const at::Tensor& expected,
                                                 double tolerance) {
  boost::test_tools::assertion_result result(false);
  if (!found.defined() || !expected.defined()) {
    result.message() << "a tensor is undefined";
  } else if (found.sizes() != expected.sizes()) {
    result.message() << "shape " << found.sizes() << ", expected " << expected.sizes();
  } else if (const double difference = relative_difference(found, expected); !(difference <= tolerance)) {
    result.message() << "relative difference " << difference << ", expected at most " << tolerance;
  } else {
    return boost::test_tools::assertion_result(true);
  }
  return result;
}

/// ||found - expected|| / ||expected||.
inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor a = found.detach().to(at::kDouble), b = expected.detach().to(at::kDouble);
  return ((a - b).norm() / b.norm()).item<double>();
}

/// How many times `expected` is in `found`; what differs at right angles to it, as rounding does, does not
/// count.
inline double times(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor a = found.detach().to(at::kDouble), b = expected.detach().to(at::kDouble);
  return ((a * b).sum() / b.square().sum()).item<double>();
}

/// The same shape, type and bits.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         (x.numel() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0);
}

inline at::Tensor copy_of(const at::Tensor& tensor) { return tensor.detach().clone(); }

}  // namespace comigs::test
