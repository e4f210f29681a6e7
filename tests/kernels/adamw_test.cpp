// AdamW: the fast version against the readable one, and that against closed forms.
#include "comigs/kernels/adamw.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

namespace comigs::kernels {

namespace {

constexpr float guard = 123.0f;  // lies behind the slice and must stay

// A slice of `count` elements in buffers that are one longer.
struct Block {
  explicit Block(std::size_t count_)
      : count(count_),
        values(count + 1, guard),
        gradients(count + 1, guard),
        first(count + 1, guard),
        second(count + 1, guard) {
    for (std::size_t i = 0; i < count; ++i) {
      values[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
      first[i] = second[i] = 0.0f;
    }
  }

  // Gradients of very different sizes, some zero, other ones at each step.
  void draw_gradients(int step) {
    for (std::size_t i = 0; i < count; ++i)
      gradients[i] =
          i % 11 == 3 ? 0.0f
                      : static_cast<float>(std::cos(1.3 * static_cast<double>(i) + step)) * gradient_scale(i);
  }

  static float gradient_scale(std::size_t i) {
    return static_cast<float>(std::pow(10.0, static_cast<double>(i % 7) - 4.0));
  }

  [[nodiscard]] AdamwSlice slice() {
    return {values.data(), gradients.data(), first.data(), second.data(), count};
  }

  std::size_t count;
  std::vector<float> values, gradients, first, second;
};

// To rounding: moments are sums of gradients that may cancel, so their own size says nothing of it.
void check_close(const Block& found, const Block& expected) {
  for (const std::vector<float>* buffer : {&found.values, &found.gradients, &found.first, &found.second})
    BOOST_TEST(buffer->back() == guard);
  for (std::size_t i = 0; i < found.count; ++i) {
    const float scale = Block::gradient_scale(i);
    BOOST_TEST(std::abs(found.values[i] - expected.values[i]) <=
               2e-6f * (std::abs(expected.values[i]) + 1e-3f));
    BOOST_TEST(std::abs(found.first[i] - expected.first[i]) <= 1e-6f * scale);
    BOOST_TEST(std::abs(found.second[i] - expected.second[i]) <= 1e-6f * scale * scale);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(adamw)

BOOST_AUTO_TEST_CASE(fast_version_agrees_with_the_reference) {
  for (const std::size_t count : {0u, 1u, 7u, 8u, 33u, 1000u}) {
    Block fast(count), reference(count);
    for (int t = 1; t <= 5; ++t) {
      fast.draw_gradients(t);
      reference.draw_gradients(t);
      const AdamwStep step = adamw_step(2e-3, 0.9, 0.95, 1e-8, 0.01, t);
      adamw_host(fast.slice(), step);
      adamw_reference(reference.slice(), step);
    }
    check_close(fast, reference);
    BOOST_TEST((fast.gradients == reference.gradients));
  }
}

BOOST_AUTO_TEST_CASE(steps_follow_the_published_formula) {
  constexpr double rate = 3e-3, beta1 = 0.8, beta2 = 0.97, epsilon = 1e-6, decay = 0.1;
  Block block(50);
  std::vector<double> values(block.values.begin(), block.values.end() - 1), first(50, 0.0), second(50, 0.0);
  for (int t = 1; t <= 6; ++t) {
    block.draw_gradients(t);
    adamw_reference(block.slice(), adamw_step(rate, beta1, beta2, epsilon, decay, t));
    for (std::size_t i = 0; i < 50; ++i) {
      const double g = static_cast<double>(block.gradients[i]);
      first[i] = beta1 * first[i] + (1.0 - beta1) * g;
      second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
      const double m = first[i] / (1.0 - std::pow(beta1, t)), v = second[i] / (1.0 - std::pow(beta2, t));
      values[i] = values[i] - rate * decay * values[i] - rate * m / (std::sqrt(v) + epsilon);
    }
  }
  for (std::size_t i = 0; i < 50; ++i)
    BOOST_TEST(std::abs(static_cast<double>(block.values[i]) - values[i]) < 1e-6);
}

BOOST_AUTO_TEST_CASE(a_constant_gradient_moves_by_the_rate) {
  // Both corrected moments are then g and g^2 at every step, so each step is the rate times the sign.
  constexpr double rate = 1e-2;
  Block block(9);
  const std::vector<float> start = block.values;
  for (int t = 1; t <= 20; ++t) {
    for (std::size_t i = 0; i < 9; ++i) block.gradients[i] = i % 2 == 0 ? 0.3f : -7.0f;
    adamw_host(block.slice(), adamw_step(rate, 0.9, 0.95, 1e-8, 0.0, t));
  }
  for (std::size_t i = 0; i < 9; ++i)
    BOOST_TEST(std::abs(static_cast<double>(block.values[i] - start[i]) - (i % 2 == 0 ? -1 : 1) * 20 * rate) <
               2e-6);
}

BOOST_AUTO_TEST_CASE(weight_decay_is_decoupled) {
  // Without a gradient a value shrinks by (1 - rate decay) a step, whatever the moments' scale would make of
  // it.
  constexpr double rate = 0.05, decay = 0.2;
  Block block(7);
  const std::vector<float> start = block.values;
  for (int t = 1; t <= 10; ++t) {
    std::fill(block.gradients.begin(), block.gradients.end() - 1, 0.0f);
    adamw_host(block.slice(), adamw_step(rate, 0.9, 0.95, 1e-8, decay, t));
  }
  for (std::size_t i = 0; i < 7; ++i) {
    BOOST_TEST(std::abs(static_cast<double>(block.values[i]) -
                        static_cast<double>(start[i]) * std::pow(1.0 - rate * decay, 10)) < 1e-6);
    BOOST_TEST(block.first[i] == 0.0f);
    BOOST_TEST(block.second[i] == 0.0f);
  }
  adamw_host(block.slice(), adamw_step(rate, 0.9, 0.95, 1e-8, 0.0, 11));
  const std::vector<float> decayed = block.values;
  adamw_host(block.slice(), adamw_step(rate, 0.9, 0.95, 1e-8, 0.0, 12));
  BOOST_TEST((block.values == decayed));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
