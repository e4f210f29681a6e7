// Learning rates in closed form, and AdamW on slices that are stepped apart.
#include "comigs/train/schedule.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <numbers>

#include "comigs/train/adamw.hpp"
#include "support/tensors.hpp"

namespace comigs::train {

namespace tt = boost::test_tools;

BOOST_AUTO_TEST_SUITE(schedules)

BOOST_AUTO_TEST_CASE(cosine_from_the_peak_to_the_final_fraction) {
  const CosineSchedule schedule{.peak = 2e-3, .warmup_fraction = 0.0, .final_fraction = 0.1, .steps = 200};
  BOOST_TEST(schedule.rate(0) == 2e-3, tt::tolerance(1e-12));
  BOOST_TEST(schedule.rate(199) == 2e-4, tt::tolerance(1e-12));
  for (const std::int64_t step : {1, 50, 99, 100, 150, 198}) {
    const double expected =
        2e-4 + 1.8e-3 * (1.0 + std::cos(std::numbers::pi * static_cast<double>(step) / 199.0)) / 2.0;
    BOOST_TEST(schedule.rate(step) == expected, tt::tolerance(1e-12));
  }
  BOOST_TEST(schedule.rate(500) == 2e-4, tt::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(warm_up_rises_to_the_peak_and_is_one_half_cosine) {
  const CosineSchedule schedule{.peak = 1.0, .warmup_fraction = 0.4, .final_fraction = 0.2, .steps = 10};
  for (std::int64_t step = 0; step < 4; ++step) {
    const double done = static_cast<double>(step + 1) / 5.0;
    BOOST_TEST(schedule.rate(step) == 0.2 + 0.8 * (1.0 - std::cos(std::numbers::pi * done)) / 2.0,
               tt::tolerance(1e-12));
    BOOST_TEST(schedule.rate(step) < schedule.rate(step + 1));
  }
  BOOST_TEST(schedule.rate(4) == 1.0, tt::tolerance(1e-12));
  for (std::int64_t step = 4; step < 9; ++step) BOOST_TEST(schedule.rate(step) > schedule.rate(step + 1));
  BOOST_TEST(schedule.rate(9) == 0.2, tt::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(runs_of_one_or_two_steps) {
  BOOST_TEST((CosineSchedule{.peak = 3.0, .steps = 1}).rate(0) == 3.0, tt::tolerance(1e-12));
  BOOST_TEST((CosineSchedule{.peak = 3.0, .steps = 2}).rate(0) == 3.0, tt::tolerance(1e-12));
  BOOST_TEST((CosineSchedule{.peak = 3.0, .steps = 2}).rate(1) == 0.3, tt::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(a_constant_rate_is_a_final_fraction_of_one) {
  const CosineSchedule schedule{.peak = 0.5, .final_fraction = 1.0, .steps = 9};
  for (std::int64_t step = 0; step < 9; ++step) BOOST_TEST(schedule.rate(step) == 0.5, tt::tolerance(1e-12));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(adamw_on_blocks)

BOOST_AUTO_TEST_CASE(a_step_touches_its_slice_alone) {
  const at::Tensor values = test::normal({20}, 1), gradients = test::normal({20}, 2);
  const at::Tensor before = test::copy_of(values);
  Adamw optimiser(values, gradients, {});
  optimiser.step({5, 8}, 0.1, 1, 0.0);
  // The first step is the rate times the gradient's sign.
  const at::Tensor expected = before.narrow(0, 5, 8) - 0.1 * gradients.narrow(0, 5, 8).sign();
  BOOST_TEST(test::close(values.narrow(0, 5, 8), expected, 1e-5));
  BOOST_TEST(test::same_bits(values.narrow(0, 0, 5), before.narrow(0, 0, 5)));
  BOOST_TEST(test::same_bits(values.narrow(0, 13, 7), before.narrow(0, 13, 7)));
}

BOOST_AUTO_TEST_CASE(slices_count_their_steps_on_their_own) {
  // Moments of the second slice are untouched by steps of the first: its own first step is again the rate.
  const at::Tensor values = at::zeros({6}),
                   gradients = at::tensor({1.0f, 2.0f, 3.0f, -4.0f, -5.0f, -6.0f}, at::kFloat);
  Adamw optimiser(values, gradients, {.weight_decay = 0.0});
  for (std::int64_t step = 1; step <= 5; ++step) optimiser.step({0, 3}, 0.01, step);
  optimiser.step({3, 3}, 0.01, 1);
  BOOST_TEST(
      test::close(values, at::tensor({-0.05f, -0.05f, -0.05f, 0.01f, 0.01f, 0.01f}, at::kFloat), 1e-5));
}

BOOST_AUTO_TEST_CASE(weight_decay_is_the_constant_unless_told) {
  const at::Tensor values = at::ones({4}), gradients = at::zeros({4});
  Adamw optimiser(values, gradients, {.weight_decay = 0.5});
  optimiser.step({0, 2}, 0.1, 1);
  optimiser.step({2, 2}, 0.1, 1, 0.0);
  BOOST_TEST(test::close(values, at::tensor({0.95f, 0.95f, 1.0f, 1.0f}, at::kFloat), 1e-7));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
