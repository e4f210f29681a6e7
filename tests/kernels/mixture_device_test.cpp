// The text of the device's mixture, run on the CPU, against the definition; and the definition's own backward
// pass against finite differences of its forward pass.
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

#include "device_mixture.hpp"

namespace comigs::kernels {

namespace {

template <class Number>
void compare(const Problem<Number>& problem, double tolerance) {
  const MixtureShape& shape = problem.shape;
  BOOST_TEST_CONTEXT("n " << shape.tokens << ", F " << shape.inner << ", E " << shape.experts << ", R "
                          << shape.rank << ", S " << shape.ups()) {
    const Result<Number> found = device<ByLanes<false>>(problem, Order::forwards),
                         expected = reference(problem);
    check_close(found, expected, tolerance);
    if constexpr (std::is_same_v<Number, Bfloat16>) {
      check_rounded_once(found.mixed, expected.mixed);
      check_rounded_once(found.d_hidden, expected.d_hidden);
    }
    check_same_bits(found, device<ByLanes<false>>(problem, Order::backwards));
    if (shape.inner % lane_columns == 0)
      check_same_bits(found, device<ByLanes<true>>(problem, Order::forwards));
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture_on_the_device)

BOOST_AUTO_TEST_CASE(float32_is_the_definition) {
  for (const auto& [shape, active] : std::vector<std::pair<MixtureShape, std::int64_t>>{{{7, 19, 1, 3}, 1},
                                                                                        {{1, 1, 1, 1}, 1},
                                                                                        {{70, 300, 4, 8}, 2},
                                                                                        {{33, 516, 2, 5}, 2},
                                                                                        {{131, 257, 8, 5}, 2},
                                                                                        {{17, 64, 8, 4}, 1},
                                                                                        {{17, 64, 8, 16}, 8},
                                                                                        {{270, 132, 3, 9}, 1},
                                                                                        {{0, 64, 2, 8}, 2}})
    for (const Activation activation : activations)
      compare(Problem<float>(with(shape, activation), active), 2e-6);
}

BOOST_AUTO_TEST_CASE(far_from_zero_it_stays_finite) {
  for (const Activation activation : activations)
    compare(Problem<float>({5, 44, 2, 3, activation}, 2).far_from_zero(), 2e-6);
}

// GPT-2's inner width and rank, 24 tiles of columns by 5 of tokens, and SmolLM2's, 12 by 10; parts have half
// of the tokens here. With two experts every token has both, with eight it has two.
BOOST_AUTO_TEST_CASE(at_real_shapes) {
  for (const MixtureShape& shape :
       {MixtureShape{600, 3072, 2, 8}, {600, 3072, 8, 8}, {600, 1536, 4, 8, Activation::silu_gated}}) {
    const Problem<Bfloat16> problem(shape, 2);
    const Result<Bfloat16> found = device<ByLanes<true>>(problem, Order::forwards, 2),
                           expected = reference(problem);
    check_close(found, expected, one_step);
    check_rounded_once(found.mixed, expected.mixed);
    check_rounded_once(found.d_hidden, expected.d_hidden);
  }
}

BOOST_AUTO_TEST_CASE(bfloat16_is_rounded_once) {
  for (const auto& [shape, active] : std::vector<std::pair<MixtureShape, std::int64_t>>{
           {{7, 19, 1, 3}, 1}, {{70, 300, 4, 8}, 2}, {{33, 516, 2, 5}, 2}, {{17, 64, 8, 16}, 8}})
    for (const Activation activation : activations)
      compare(Problem<Bfloat16>(with(shape, activation), active), one_step);
}

BOOST_AUTO_TEST_CASE(tokens_in_parts_sum_to_the_same) {
  for (const Activation activation : activations) {
    const Problem<float> problem({530, 20, 2, 3, activation}, 1);
    const Result<float> expected = reference(problem);
    for (const std::int64_t parts : {1, 2, 3, 5})
      check_close(device<ByLanes<true>>(problem, Order::forwards, parts), expected, 2e-6);
  }
  BOOST_TEST(token_parts({8192, 3072, 2, 8}) == 16);
  BOOST_TEST(token_parts({530, 20, 2, 3}) == 5);
  BOOST_TEST(token_parts({530, 20, 2, 3, Activation::silu_gated}) == 9);
  BOOST_TEST(token_parts({0, 20, 2, 3}) == 0);
  BOOST_TEST(token_parts({1 << 20, 1 << 20, 2, 3}) == 1);
}

BOOST_AUTO_TEST_CASE(gradients_that_are_not_asked_for_are_not_made) {
  for (const Activation activation : activations) {
    const Problem<float> problem({40, 24, 3, 12, activation}, 2);
    const Result<float> all = device<ByLanes<true>>(problem, Order::forwards);
    for (const bool up_B : {false, true})
      for (const bool down_A : {false, true}) {
        Result<float> some(problem.shape);
        MixtureGradients<float> gradients = some.gradients(problem);
        gradients.d_gate = nullptr;
        if (!up_B) gradients.d_up_B = nullptr;
        if (!down_A) gradients.d_down_A = nullptr;
        backward<ByLanes<true>>(problem.inputs(), gradients, Order::forwards, as_planned);
        BOOST_TEST((some.d_hidden == all.d_hidden));
        BOOST_TEST((some.d_reduced == all.d_reduced));
        const Result<float> untouched(problem.shape);
        BOOST_TEST((some.d_gate == untouched.d_gate));
        BOOST_TEST((some.d_up_B == (up_B ? all.d_up_B : untouched.d_up_B)));
        BOOST_TEST((some.d_down_A == (down_A ? all.d_down_A : untouched.d_down_A)));
      }
  }
}

BOOST_AUTO_TEST_CASE(lanes_take_columns_together_where_they_fit) {
  const Problem<float> fits({3, 8, 2, 2}, 2), odd({3, 9, 2, 2}, 2);
  BOOST_TEST(lanes_fit(fits.inputs(), {fits.hidden.data()}));
  BOOST_TEST(!lanes_fit(fits.inputs(), {fits.hidden.data() + 1}));
  BOOST_TEST(!lanes_fit(odd.inputs(), {odd.hidden.data()}));
  const Problem<Bfloat16> half({3, 8, 2, 2}, 2);
  BOOST_TEST(lanes_fit(half.inputs(), {half.hidden.data() + 4}));
  BOOST_TEST(!lanes_fit(half.inputs(), {half.hidden.data() + 2}));
}

BOOST_AUTO_TEST_CASE(the_definition_of_backward_is_the_slope) {
  for (const Activation activation : activations) {
    // The loss is sum d_mixed mixed + sum d_weighted weighted.
    const Problem<float> problem({3, 5, 3, 2, activation}, 2);
    const Result<float> slope = reference(problem);
    const auto loss = [](const Problem<float>& at) {
      const Result<float> result = reference(at);
      double sum = 0.0;
      for (std::size_t i = 0; i < at.d_mixed.size(); ++i)
        sum += static_cast<double>(at.d_mixed[i]) * static_cast<double>(result.mixed[i]);
      for (std::size_t i = 0; i < at.d_weighted.size(); ++i)
        sum += static_cast<double>(at.d_weighted[i]) * static_cast<double>(result.weighted[i]);
      return sum;
    };
    const auto check = [&](std::vector<float> Problem<float>::*input, const std::vector<float>& gradient) {
      constexpr float step = 1.0f / 64;
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        if (input == &Problem<float>::gate && problem.gate[i] == 0.0f)
          continue;  // an expert joining is a jump
        Problem<float> above = problem, below = problem;
        (above.*input)[i] += step;
        (below.*input)[i] -= step;
        BOOST_REQUIRE_SMALL((loss(above) - loss(below)) / (2.0 * static_cast<double>(step)) -
                                static_cast<double>(gradient[i]),
                            1e-3);
      }
    };
    check(&Problem<float>::hidden, slope.d_hidden);
    check(&Problem<float>::reduced, slope.d_reduced);
    check(&Problem<float>::gate, slope.d_gate);
    check(&Problem<float>::up_B, slope.d_up_B);
    check(&Problem<float>::down_A, slope.d_down_A);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
