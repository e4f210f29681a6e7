// How far two arrays are apart, relative to the largest number expected.
#pragma once

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "number.hpp"

namespace comigs::kernels {

template <class Number>
void check_close(const std::string& what, const std::vector<Number>& found,
                 const std::vector<Number>& expected, double tolerance) {
  double worst = 0.0, largest = 0.0;
  BOOST_TEST_REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double a = to_float(found[i]), b = to_float(expected[i]);
    worst = std::isfinite(a) ? std::max(worst, std::abs(a - b)) : INFINITY;
    largest = std::max(largest, std::abs(b));
  }
  BOOST_TEST(worst <= tolerance * largest, what << ": " << worst << " of " << largest);
}

}  // namespace comigs::kernels
