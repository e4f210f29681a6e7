// The gate of top-k mixtures: the fast version against float64, both against the formulas written out, and
// the backward pass against finite differences.
#include "comigs/kernels/gate.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "agreement.hpp"
#include "gate_block.hpp"
#include "host_block.hpp"

namespace comigs::kernels {

namespace {

struct Problem {
  GateShape shape;
  std::vector<float> logits, d_gate, d_probabilities;

  explicit Problem(GateShape shape_) : shape(shape_) {
    std::mt19937 generator(static_cast<unsigned>(shape.tokens + 100 * shape.experts + 10000 * shape.active));
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < shape.tokens * shape.experts; ++i) {
      logits.push_back(2.0f * normal(generator));
      d_gate.push_back(normal(generator));
    }
    for (std::int64_t e = 0; e < shape.experts; ++e) d_probabilities.push_back(normal(generator));
  }
  [[nodiscard]] std::size_t size() const { return logits.size(); }
};

struct Result {
  std::vector<float> probabilities, gate, d_logits;
  std::vector<std::uint8_t> chosen;
  std::vector<float> load_chosen, load_probabilities;

  explicit Result(const Problem& problem)
      : probabilities(problem.size(), 7.0f),
        gate(problem.size(), 7.0f),
        d_logits(problem.size(), 7.0f),
        chosen(problem.size(), 7),
        load_chosen(problem.d_probabilities.size(), 7.0f),
        load_probabilities(problem.d_probabilities.size(), 7.0f) {}

  GateForward forward(const Problem& problem) {
    return {problem.shape, problem.logits.data(), probabilities.data(), gate.data(), chosen.data()};
  }
  GateBackward backward(const Problem& problem) {
    return {problem.shape,         probabilities.data(),           gate.data(),
            problem.d_gate.data(), problem.d_probabilities.data(), d_logits.data()};
  }
  GateLoad load() { return {load_chosen.data(), load_probabilities.data()}; }
};

const std::vector<GateShape> shapes{{1, 1, 1},  {9, 2, 1},  {9, 2, 2},   {33, 5, 2},   {300, 8, 1},
                                    {70, 8, 2}, {70, 8, 8}, {20, 64, 2}, {257, 16, 3}, {0, 4, 2}};

// The definition as PyTorch would be asked for it: sort, keep K, softmax over what is kept; of a single one,
// what it has of the softmax over all.
void check_definition(const Problem& problem, const Result& result) {
  const auto E = static_cast<std::size_t>(problem.shape.experts);
  for (std::size_t first = 0; first < problem.size(); first += E) {
    std::vector<std::size_t> order(E);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return problem.logits[first + a] > problem.logits[first + b];
    });
    double all = 0.0, kept = 0.0;
    const auto exponential = [&](std::size_t e) {
      return std::exp(static_cast<double>(problem.logits[first + e]));
    };
    for (std::size_t i = 0; i < E; ++i) {
      all += exponential(order[i]);
      if (static_cast<std::int64_t>(i) < problem.shape.active) kept += exponential(order[i]);
    }
    if (problem.shape.active == 1) kept = all;
    for (std::size_t i = 0; i < E; ++i) {
      const std::size_t e = order[i];
      const bool chosen = static_cast<std::int64_t>(i) < problem.shape.active;
      BOOST_TEST(static_cast<bool>(result.chosen[first + e]) == chosen);
      BOOST_REQUIRE_SMALL(static_cast<double>(result.probabilities[first + e]) - exponential(e) / all, 1e-6);
      BOOST_REQUIRE_SMALL(
          static_cast<double>(result.gate[first + e]) - (chosen ? exponential(e) / kept : 0.0), 1e-6);
      if (!chosen) BOOST_TEST(result.gate[first + e] == 0.0f);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gate_kernels)

BOOST_AUTO_TEST_CASE(shares_are_of_the_softmax) {
  for (const GateShape& shape : shapes) {
    const Problem problem(shape);
    Result fast(problem), reference(problem);
    gate_forward(fast.forward(problem), 0, shape.tokens / 3);
    gate_forward(fast.forward(problem), shape.tokens / 3, shape.tokens);
    gate_forward_reference(reference.forward(problem));
    check_definition(problem, fast);
    check_definition(problem, reference);
  }
}

BOOST_AUTO_TEST_CASE(among_equals_the_lower_expert_is_chosen) {
  Problem problem({2, 4, 2});
  problem.logits = {1.0f, 3.0f, 3.0f, 3.0f, 2.0f, 2.0f, 2.0f, 2.0f};
  Result result(problem);
  gate_forward(result.forward(problem), 0, 2);
  BOOST_TEST((result.chosen == std::vector<std::uint8_t>{0, 1, 1, 0, 1, 1, 0, 0}));
  BOOST_TEST((result.gate == std::vector<float>{0.0f, 0.5f, 0.5f, 0.0f, 0.5f, 0.5f, 0.0f, 0.0f}));
}

BOOST_AUTO_TEST_CASE(huge_logits_stay_finite) {
  Problem problem({1, 3, 2});
  problem.logits = {1e4f, -1e4f, 1e4f};
  Result result(problem);
  gate_forward(result.forward(problem), 0, 1);
  BOOST_TEST((result.gate == std::vector<float>{0.5f, 0.0f, 0.5f}));
  BOOST_TEST((result.probabilities == std::vector<float>{0.5f, 0.0f, 0.5f}));
}

BOOST_AUTO_TEST_CASE(fast_backward_is_the_definition) {
  for (const GateShape& shape : shapes) {
    const Problem problem(shape);
    Result fast(problem), reference(problem);
    gate_forward_reference(reference.forward(problem));
    gate_forward_reference(fast.forward(problem));
    gate_backward_reference(reference.backward(problem));
    gate_backward(fast.backward(problem), 0, shape.tokens / 3);
    gate_backward(fast.backward(problem), shape.tokens / 3, shape.tokens);
    // Differences of gradients of size 1 may cancel: to rounding of those.
    for (std::size_t i = 0; i < problem.size(); ++i)
      BOOST_REQUIRE_SMALL(static_cast<double>(fast.d_logits[i] - reference.d_logits[i]), 2e-6);
  }
}

BOOST_AUTO_TEST_CASE(backward_is_the_slope) {
  // The loss is sum d_gate gate + sum d_probabilities (mean over tokens of the probabilities); no step is
  // large enough to change a choice.
  for (const GateShape& shape :
       {GateShape{5, 4, 2}, GateShape{3, 8, 8}, GateShape{4, 3, 1}, GateShape{2, 1, 1}})
    for (const bool shares : {true, false})
      for (const bool loads : {true, false}) {
        const Problem problem(shape);
        Result result(problem);
        gate_forward_reference(result.forward(problem));
        GateBackward pass = result.backward(problem);
        if (!shares) pass.d_gate = nullptr;
        if (!loads) pass.d_probabilities = nullptr;
        gate_backward_reference(pass);
        const auto loss_at = [&](std::size_t i, float step) {
          Problem moved = problem;
          moved.logits[i] += step;
          Result at(moved);
          gate_forward_reference(at.forward(moved));
          double loss = 0.0;
          for (std::size_t j = 0; j < problem.size(); ++j) {
            if (shares) loss += static_cast<double>(problem.d_gate[j]) * static_cast<double>(at.gate[j]);
            const std::size_t e = j % problem.d_probabilities.size();
            if (loads)
              loss += static_cast<double>(problem.d_probabilities[e]) *
                      static_cast<double>(at.probabilities[j]) / static_cast<double>(shape.tokens);
          }
          return loss;
        };
        constexpr float step = 1.0f / 128;
        for (std::size_t i = 0; i < problem.size(); ++i)
          BOOST_REQUIRE_SMALL((loss_at(i, step) - loss_at(i, -step)) / (2.0 * static_cast<double>(step)) -
                                  static_cast<double>(result.d_logits[i]),
                              2e-4);
      }
}

// Of two experts, one of which is chosen, the gate is the logistic function of the logits' distance.
BOOST_AUTO_TEST_CASE(a_single_choice_has_its_probability_for_a_share_and_a_slope) {
  Problem problem({2, 2, 1});
  problem.logits = {0.25f, -0.5f, -1.0f, 1.0f};
  problem.d_gate = {2.0f, 100.0f, 100.0f, -3.0f};
  Result result(problem);
  gate_forward(result.forward(problem), 0, 2);
  GateBackward pass = result.backward(problem);
  pass.d_probabilities = nullptr;
  gate_backward(pass, 0, 2);
  const double first = 1.0 / (1.0 + std::exp(-0.75)), second = 1.0 / (1.0 + std::exp(-2.0));
  const std::vector<double> gate = {first, 0.0, 0.0, second},
                            slope = {2.0 * first * (1 - first), -2.0 * first * (1 - first),
                                     3.0 * second * (1 - second), -3.0 * second * (1 - second)};
  for (std::size_t i = 0; i < 4; ++i) {
    BOOST_REQUIRE_SMALL(static_cast<double>(result.gate[i]) - gate[i], 1e-6);
    BOOST_REQUIRE_SMALL(static_cast<double>(result.d_logits[i]) - slope[i], 1e-6);
  }
  Problem alone({1, 1, 1});
  Result one(alone);
  gate_forward(one.forward(alone), 0, 1);
  BOOST_TEST(one.gate[0] == 1.0f);
}

BOOST_AUTO_TEST_CASE(load_is_the_mean_over_tokens) {
  for (const GateShape& shape : shapes) {
    const Problem problem(shape);
    Result result(problem), device(problem);
    const auto tokens = static_cast<double>(std::max<std::int64_t>(shape.tokens, 1));
    gate_forward(result.forward(problem), 0, shape.tokens);
    gate_load(result.forward(problem), result.load());
    for (const Order order : {Order::forwards, Order::backwards})
      for (std::int64_t e = 0; e < shape.experts; ++e) {
        HostBlock<64> block(2 * 64, order);
        gate_load_expert(block, result.forward(problem), device.load(), e);
        std::vector<double> sums(2, 0.0);
        for (std::int64_t t = 0; t < shape.tokens; ++t) {
          const auto i = static_cast<std::size_t>(t * shape.experts + e);
          sums[0] += result.chosen[i];
          sums[1] += static_cast<double>(result.probabilities[i]);
        }
        const auto expert = static_cast<std::size_t>(e);
        for (const Result* found : {&result, &device}) {
          BOOST_REQUIRE_SMALL(static_cast<double>(found->load_chosen[expert]) - sums[0] / tokens, 1e-7);
          BOOST_REQUIRE_SMALL(static_cast<double>(found->load_probabilities[expert]) - sums[1] / tokens,
                              1e-7);
        }
      }
    // K experts a token, and probabilities that sum to one.
    if (shape.tokens == 0) continue;
    BOOST_REQUIRE_SMALL(std::accumulate(result.load_chosen.begin(), result.load_chosen.end(), 0.0) -
                            static_cast<double>(shape.active),
                        1e-6);
    BOOST_REQUIRE_SMALL(
        std::accumulate(result.load_probabilities.begin(), result.load_probabilities.end(), 0.0) - 1.0, 1e-6);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
