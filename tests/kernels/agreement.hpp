// How far two arrays are apart, each number relative to itself and to the size that is typical of them.
#pragma once

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "number.hpp"

namespace comigs::kernels {

/// Sums may cancel: what is far below the mean size of all is held against that.
template <class Number>
void check_close(const std::string& what, const std::vector<Number>& found,
                 const std::vector<Number>& expected, double tolerance) {
  BOOST_TEST_REQUIRE(found.size() == expected.size());
  double typical = 0.0, worst = 0.0;
  bool finite = true;
  for (const Number number : expected)
    typical += std::abs(static_cast<double>(to_float(number))) / static_cast<double>(expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double a = to_float(found[i]), b = to_float(expected[i]);
    finite = finite && std::isfinite(a) && std::isfinite(b);
    if (a != b) worst = std::max(worst, std::abs(a - b) / (std::abs(b) + typical));
  }
  BOOST_TEST(finite, what << ": not finite");
  BOOST_TEST(worst <= tolerance, what << ": off by " << worst << ", typical size " << typical);
}

/// The root mean square of what is between them, by that of what is expected: of sums whose terms are
/// rounded. No number is off by sixteen times as much.
inline void check_near(const std::string& what, const std::vector<float>& found,
                       const std::vector<float>& expected, double tolerance) {
  BOOST_TEST_REQUIRE(found.size() == expected.size());
  double apart = 0.0, worst = 0.0, size = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double square = std::pow(static_cast<double>(found[i]) - static_cast<double>(expected[i]), 2);
    apart += square;
    worst = std::max(worst, square);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  const double allowed = tolerance * std::sqrt(size);
  BOOST_TEST(std::sqrt(apart) <= allowed, what << ": off by " << std::sqrt(apart / size));
  BOOST_TEST(std::sqrt(worst * static_cast<double>(found.size())) <= 16.0 * allowed,
             what << ": one is off by " << std::sqrt(worst));
}

}  // namespace comigs::kernels
