// The vectorised mixture against its definition, at odd sizes, for any number of active experts.
#include "comigs/kernels/mixture.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace comigs::kernels {

namespace {

float to_float(float number) { return number; }
float to_float(Bfloat16 bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

template <class Number>
struct Problem {
  MixtureShape shape;
  std::vector<Number> hidden, d_mixed;
  std::vector<float> reduced, gate, up_B, down_A, d_weighted;

  Problem(MixtureShape shape_, std::int64_t active) : shape(shape_) {
    const auto [n, F, E, R] = shape;
    std::mt19937 generator(static_cast<unsigned>(n + 100 * F + 10000 * E));
    std::normal_distribution<float> normal;
    const auto draw = [&](auto& numbers, std::int64_t count, float scale) {
      for (std::int64_t i = 0; i < count; ++i) {
        const float value = scale * normal(generator);
        if constexpr (std::is_same_v<std::remove_reference_t<decltype(numbers)>, std::vector<float>>)
          numbers.push_back(value);
        else
          numbers.push_back(static_cast<Bfloat16>(std::bit_cast<std::uint32_t>(value) >> 16));
      }
    };
    draw(hidden, n * F, 1.5f);
    draw(d_mixed, n * F, 1.0f);
    draw(reduced, n * E * R, 0.5f);
    draw(up_B, E * R * F, 0.3f);
    draw(down_A, E * R * F, 0.3f);
    draw(d_weighted, n * E * R, 0.5f);
    gate.assign(static_cast<std::size_t>(n * E), 0.0f);
    for (std::int64_t t = 0; t < n; ++t)
      for (std::int64_t j = 0; j < active; ++j)
        gate[static_cast<std::size_t>(t * E + (3 * t + j) % E)] = 0.2f + 0.1f * static_cast<float>(j);
    // Far from zero gelu and its slope are 0 or 1 exactly, and must not become NaN.
    if (n * F >= 4) {
      for (const std::size_t i : {0u, 1u, 2u, 3u})
        if constexpr (std::is_same_v<Number, float>)
          hidden[i] = std::vector<float>{60.f, -60.f, 1e4f, -1e4f}[i];
    }
  }

  [[nodiscard]] MixtureInputs<Number> inputs() const {
    return {shape, hidden.data(), reduced.data(), gate.data(), up_B.data(), down_A.data()};
  }
};

template <class Number>
struct Result {
  std::vector<Number> mixed, d_hidden;
  std::vector<float> weighted, d_reduced, d_gate, d_up_B, d_down_A;

  explicit Result(const MixtureShape& shape) {
    const auto [n, F, E, R] = shape;
    mixed.assign(static_cast<std::size_t>(n * F), Number{7});
    d_hidden = mixed;
    weighted.assign(static_cast<std::size_t>(n * E * R), 7.0f);
    d_up_B.assign(static_cast<std::size_t>(E * R * F), 7.0f);
    d_down_A = d_up_B;
    d_reduced.assign(weighted.size(), 0.0f);
    d_gate.assign(static_cast<std::size_t>(n * E), 0.0f);
  }
  MixtureOutputs<Number> outputs() { return {mixed.data(), weighted.data()}; }
  MixtureGradients<Number> gradients(const Problem<Number>& problem) {
    return {problem.d_mixed.data(), problem.d_weighted.data(),
            d_hidden.data(),        d_reduced.data(),
            d_gate.data(),          d_up_B.data(),
            d_down_A.data()};
  }
};

template <class Number>
void check(const std::string& what, const std::vector<Number>& found, const std::vector<Number>& expected,
           double tolerance) {
  double worst = 0.0, largest = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double a = to_float(found[i]), b = to_float(expected[i]);
    worst = std::isfinite(a) ? std::max(worst, std::abs(a - b)) : INFINITY;
    largest = std::max(largest, std::abs(b));
  }
  BOOST_TEST(worst <= tolerance * largest, what << ": " << worst << " of " << largest);
}

template <class Number>
void compare(const MixtureShape& shape, std::int64_t active, double tolerance) {
  const Problem<Number> problem(shape, active);
  Result<Number> found(shape), expected(shape);
  mixture_forward_reference(problem.inputs(), expected.outputs());
  mixture_backward_reference(problem.inputs(), expected.gradients(problem));
  // In parts, as threads take them: tokens forward, columns backward.
  const std::int64_t tokens = shape.tokens / 3, columns = shape.inner / 2;
  mixture_forward(problem.inputs(), found.outputs(), 0, tokens);
  mixture_forward(problem.inputs(), found.outputs(), tokens, shape.tokens);
  mixture_backward(problem.inputs(), found.gradients(problem), 0, columns);
  mixture_backward(problem.inputs(), found.gradients(problem), columns, shape.inner);
  check("mixed", found.mixed, expected.mixed, tolerance);
  check("weighted", found.weighted, expected.weighted, 1e-5);
  check("d_hidden", found.d_hidden, expected.d_hidden, tolerance);
  check("d_reduced", found.d_reduced, expected.d_reduced, 1e-5);
  check("d_gate", found.d_gate, expected.d_gate, 1e-5);
  check("d_up_B", found.d_up_B, expected.d_up_B, 1e-5);
  check("d_down_A", found.d_down_A, expected.d_down_A, 1e-5);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture_kernels)

BOOST_AUTO_TEST_CASE(float32_is_the_definition) {
  for (const auto& [shape, active] : std::vector<std::pair<MixtureShape, std::int64_t>>{{{7, 19, 1, 3}, 1},
                                                                                        {{1, 1, 1, 1}, 1},
                                                                                        {{70, 300, 4, 8}, 2},
                                                                                        {{33, 1100, 2, 5}, 2},
                                                                                        {{131, 257, 8, 5}, 2},
                                                                                        {{17, 64, 8, 4}, 1},
                                                                                        {{17, 64, 8, 16}, 8},
                                                                                        {{0, 64, 2, 8}, 2}})
    compare<float>(shape, active, 1e-6);
}

BOOST_AUTO_TEST_CASE(bfloat16_is_the_definition_to_its_precision) {
  // Each of the active experts rounds the sum once more.
  for (const auto& [shape, active] : std::vector<std::pair<MixtureShape, std::int64_t>>{
           {{7, 19, 1, 3}, 1}, {{70, 300, 4, 8}, 2}, {{33, 1100, 2, 5}, 2}})
    compare<Bfloat16>(shape, active, 8e-3);
}

BOOST_AUTO_TEST_CASE(gradients_that_are_not_asked_for_are_not_made) {
  const MixtureShape shape{9, 40, 3, 4};
  const Problem<float> problem(shape, 2);
  Result<float> all(shape), some(shape);
  MixtureGradients<float> gradients = some.gradients(problem);
  gradients.d_gate = gradients.d_up_B = gradients.d_down_A = nullptr;
  mixture_backward(problem.inputs(), gradients, 0, shape.inner);
  mixture_backward(problem.inputs(), all.gradients(problem), 0, shape.inner);
  BOOST_TEST((some.d_hidden == all.d_hidden));
  BOOST_TEST((some.d_reduced == all.d_reduced));
  BOOST_TEST((some.d_up_B == std::vector<float>(some.d_up_B.size(), 7.0f)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
