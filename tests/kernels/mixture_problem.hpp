// A mixture to compute: random operands, any number of active experts, and room for what is computed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "agreement.hpp"
#include "comigs/kernels/mixture.hpp"

namespace comigs::kernels {

template <class Number>
struct Problem {
  MixtureShape shape;
  std::vector<Number> hidden, d_mixed;
  std::vector<float> reduced, gate, up_B, down_A, d_weighted;

  Problem(MixtureShape shape_, std::int64_t active) : shape(shape_) {
    const auto [n, F, E, R, activation] = shape;
    const std::int64_t S = shape.ups();
    std::mt19937 generator(static_cast<unsigned>(n + 100 * F + 10000 * E));
    std::normal_distribution<float> normal;
    const auto draw = [&](auto& numbers, std::int64_t count, float scale) {
      for (std::int64_t i = 0; i < count; ++i) from_float(scale * normal(generator), numbers.emplace_back());
    };
    draw(hidden, S * n * F, 1.5f);
    draw(d_mixed, n * F, 1.0f);
    draw(reduced, n * S * E * R, 0.5f);
    draw(up_B, S * E * R * F, 0.3f);
    draw(down_A, E * R * F, 0.3f);
    draw(d_weighted, n * E * R, 0.5f);
    gate.assign(static_cast<std::size_t>(n * E), 0.0f);
    for (std::int64_t t = 0; t < n; ++t)
      for (std::int64_t j = 0; j < active; ++j)
        gate[static_cast<std::size_t>(t * E + (3 * t + j) % E)] = 0.2f + 0.1f * static_cast<float>(j);
  }

  /// With numbers so far from zero that gelu, silu and their slopes are exact, and must not become NaN.
  [[nodiscard]] Problem far_from_zero() const {
    Problem problem = *this;
    const std::vector<float> far = {60.0f, -60.0f, 1e4f, -1e4f};
    for (std::size_t i = 0; i < problem.hidden.size(); i += 3) from_float(far[i / 3 % 4], problem.hidden[i]);
    return problem;
  }

  [[nodiscard]] MixtureInputs<Number> inputs() const {
    return {shape, hidden.data(), reduced.data(), gate.data(), up_B.data(), down_A.data()};
  }
};

inline constexpr std::array activations = {Activation::gelu_tanh, Activation::silu_gated};

inline MixtureShape with(MixtureShape shape, Activation activation) {
  shape.activation = activation;
  return shape;
}

template <class Number>
struct Result {
  std::vector<Number> mixed, d_hidden;
  std::vector<float> weighted, d_reduced, d_gate, d_up_B, d_down_A;

  explicit Result(const MixtureShape& shape) {
    const auto [n, F, E, R, activation] = shape;
    const std::int64_t S = shape.ups();
    mixed.assign(static_cast<std::size_t>(n * F), Number{7});
    d_hidden.assign(static_cast<std::size_t>(S * n * F), Number{7});
    weighted.assign(static_cast<std::size_t>(n * E * R), 7.0f);
    d_up_B.assign(static_cast<std::size_t>(S * E * R * F), 7.0f);
    d_down_A.assign(static_cast<std::size_t>(E * R * F), 7.0f);
    d_reduced.assign(static_cast<std::size_t>(n * S * E * R), 7.0f);
    d_gate.assign(static_cast<std::size_t>(n * E), 7.0f);
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
Result<Number> reference(const Problem<Number>& problem) {
  Result<Number> result(problem.shape);
  mixture_forward_reference(problem.inputs(), result.outputs());
  mixture_backward_reference(problem.inputs(), result.gradients(problem));
  return result;
}

/// The distance of two bfloat16 numbers, relative to the larger.
inline constexpr double one_step = 1.0 / 128;

/// `tolerance` is that of the results in the model's precision.
template <class Number>
void check_close(const Result<Number>& found, const Result<Number>& expected, double tolerance) {
  check_close("mixed", found.mixed, expected.mixed, tolerance);
  check_close("weighted", found.weighted, expected.weighted, 1e-5);
  check_close("d_hidden", found.d_hidden, expected.d_hidden, tolerance);
  check_close("d_reduced", found.d_reduced, expected.d_reduced, 1e-5);
  check_close("d_gate", found.d_gate, expected.d_gate, 1e-5);
  check_close("d_up_B", found.d_up_B, expected.d_up_B, 1e-5);
  check_close("d_down_A", found.d_down_A, expected.d_down_A, 1e-5);
}

}  // namespace comigs::kernels
