// Cross entropy of logit rows: the host's and the device's text against the definition, and that against
// closed forms.
#include "comigs/kernels/cross_entropy.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "agreement.hpp"
#include "cross_entropy_block.hpp"
#include "host_block.hpp"

namespace comigs::kernels {

namespace {

template <class Number>
struct Chunk {
  std::int64_t tokens, vocabulary, stride;
  std::vector<Number> logits;
  std::vector<std::int64_t> targets;
  std::vector<float> losses;

  // Normal logits, and between rows of an odd vocabulary some more; every fifth token has no target.
  Chunk(std::int64_t tokens_, std::int64_t vocabulary_, float scale, float shift = 0.0f)
      : tokens(tokens_),
        vocabulary(vocabulary_),
        stride(vocabulary_ + vocabulary_ % 2 * 3),
        losses(static_cast<std::size_t>(tokens_), 7.0f) {
    std::mt19937 generator(static_cast<unsigned>(tokens + 1000 * vocabulary));
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < tokens * stride; ++i)
      from_float(shift + scale * normal(generator), logits.emplace_back());
    for (std::int64_t t = 0; t < tokens; ++t)
      targets.push_back(t % 5 == 3 ? -1 : static_cast<std::int64_t>(generator()) % vocabulary);
  }

  LogitRows<Number> rows(bool gradient) {
    return {tokens, vocabulary, stride, logits.data(), targets.data(), losses.data(), gradient};
  }
};

// What lies between rows is the same.
template <class Number>
bool same_gaps(const Chunk<Number>& one, const Chunk<Number>& other) {
  for (std::int64_t row = 0; row < one.tokens; ++row) {
    const std::int64_t end = (row + 1) * one.stride;
    if (!std::equal(one.logits.begin() + end - (one.stride - one.vocabulary), one.logits.begin() + end,
                    other.logits.begin() + end - (one.stride - one.vocabulary)))
      return false;
  }
  return true;
}

template <class Number>
void reference(Chunk<Number>& chunk, bool gradient) {
  cross_entropy_rows_reference(chunk.rows(gradient));
}

// In two parts, as threads take them.
template <class Number>
void on_host(Chunk<Number>& chunk, bool gradient) {
  cross_entropy_rows(chunk.rows(gradient), 0, chunk.tokens / 3);
  cross_entropy_rows(chunk.rows(gradient), chunk.tokens / 3, chunk.tokens);
}

template <int threads = 128, class Number>
void on_device(Chunk<Number>& chunk, bool gradient, Order order) {
  for (std::int64_t token = 0; token < chunk.tokens; ++token) {
    HostBlock<threads> block(threads / warp_lanes, order);
    cross_entropy_row(block, chunk.rows(gradient), token);
  }
}

template <class Number>
void compare(const Chunk<Number>& problem, double gradient_tolerance) {
  Chunk<Number> expected = problem, host = problem, device = problem, backwards = problem;
  reference(expected, true);
  on_host(host, true);
  on_device(device, true, Order::forwards);
  on_device(backwards, true, Order::backwards);
  const std::string size = std::to_string(problem.tokens) + " x " + std::to_string(problem.vocabulary);
  check_close("losses on the host, " + size, host.losses, expected.losses, 1e-6);
  check_close("losses on the device, " + size, device.losses, expected.losses, 1e-6);
  check_close("gradient on the host, " + size, host.logits, expected.logits, gradient_tolerance);
  check_close("gradient on the device, " + size, device.logits, expected.logits, gradient_tolerance);
  for (const Chunk<Number>* chunk : {&expected, &host, &device}) BOOST_TEST(same_gaps(problem, *chunk));
  BOOST_TEST((device.losses == backwards.losses));
  BOOST_TEST((device.logits == backwards.logits));
}

// Every way to compute must leave the logits alone when no gradient is asked for, and find the same losses.
template <class Number, class Compute>
void check_losses_alone(const Chunk<Number>& problem, const Compute& compute) {
  Chunk<Number> with = problem, without = problem;
  compute(with, true);
  compute(without, false);
  BOOST_TEST((without.logits == problem.logits));
  BOOST_TEST((without.losses == with.losses));
}

constexpr std::int64_t sizes[][2] = {{1, 1}, {4, 2}, {7, 3}, {3, 17}, {9, 128}, {5, 1031}, {6, 2048}, {0, 9}};

}  // namespace

BOOST_AUTO_TEST_SUITE(cross_entropy_kernels)

BOOST_AUTO_TEST_CASE(float32_is_the_definition) {
  for (const auto [tokens, vocabulary] : sizes)
    for (const float scale : {0.0f, 1.0f, 8.0f}) compare(Chunk<float>(tokens, vocabulary, scale), 2e-6);
}

BOOST_AUTO_TEST_CASE(bfloat16_is_the_definition_to_its_precision) {
  for (const auto [tokens, vocabulary] : sizes)
    for (const float scale : {0.0f, 1.0f, 8.0f}) compare(Chunk<Bfloat16>(tokens, vocabulary, scale), 4e-3);
}

BOOST_AUTO_TEST_CASE(a_real_vocabulary) {
  compare(Chunk<float>(2, 50257, 3.0f), 2e-6);
  compare(Chunk<Bfloat16>(2, 50257, 3.0f), 4e-3);
  // With as many threads as are launched.
  Chunk<Bfloat16> chunk(12, 50257, 3.0f), expected = chunk;
  on_device<1024>(chunk, true, Order::backwards);
  reference(expected, true);
  check_close("losses", chunk.losses, expected.losses, 1e-6);
  check_close("gradient", chunk.logits, expected.logits, 4e-3);
}

BOOST_AUTO_TEST_CASE(huge_logits_stay_finite) {
  for (const float shift : {-1e4f, 1e4f, 3e8f}) compare(Chunk<float>(5, 301, 40.0f, shift), 2e-6);
  compare(Chunk<float>(5, 301, 1e4f), 2e-6);
  compare(Chunk<Bfloat16>(5, 301, 1e4f), 4e-3);
}

BOOST_AUTO_TEST_CASE(what_is_not_finite_shows_in_the_loss) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const std::size_t place : {std::size_t{0}, std::size_t{16}, std::size_t{40}, std::size_t{49}})
      for (const bool gradient : {false, true}) {
        Chunk<float> host(1, 50, 1.0f);
        host.logits[place] = bad;
        Chunk<float> device = host;
        on_host(host, gradient);
        on_device(device, gradient, Order::forwards);
        BOOST_TEST(!std::isfinite(host.losses[0]));
        BOOST_TEST(!std::isfinite(device.losses[0]));
      }
}

BOOST_AUTO_TEST_CASE(losses_alone_leave_the_logits) {
  for (const auto [tokens, vocabulary] : sizes) {
    const Chunk<float> full(tokens, vocabulary, 2.0f);
    const Chunk<Bfloat16> half(tokens, vocabulary, 2.0f);
    const auto host = [](auto& chunk, bool gradient) { on_host(chunk, gradient); };
    const auto device = [](auto& chunk, bool gradient) { on_device(chunk, gradient, Order::forwards); };
    const auto defined = [](auto& chunk, bool gradient) { reference(chunk, gradient); };
    check_losses_alone(full, host), check_losses_alone(half, host);
    check_losses_alone(full, device), check_losses_alone(half, device);
    check_losses_alone(full, defined), check_losses_alone(half, defined);
  }
}

BOOST_AUTO_TEST_CASE(equal_logits_lose_the_logarithm_of_the_vocabulary) {
  for (const std::int64_t vocabulary : {1, 2, 77, 4096}) {
    const auto check = [&](auto compute) {
      Chunk<float> chunk(4, vocabulary, 0.0f, 2.5f);
      compute(chunk);
      for (std::size_t t = 0; t < 4; ++t) {
        const bool any = chunk.targets[t] >= 0;
        const double n = static_cast<double>(vocabulary);
        BOOST_TEST(std::abs(static_cast<double>(chunk.losses[t]) - (any ? std::log(n) : 0.0)) < 1e-5);
        for (std::int64_t c = 0; c < vocabulary; ++c) {
          const double d = any ? 1.0 / n - (c == chunk.targets[t] ? 1.0 : 0.0) : 0.0;
          const float found =
              chunk.logits[t * static_cast<std::size_t>(chunk.stride) + static_cast<std::size_t>(c)];
          BOOST_REQUIRE_SMALL(static_cast<double>(found) - d, 1e-6);
        }
      }
    };
    check([](auto& chunk) { reference(chunk, true); });
    check([](auto& chunk) { on_host(chunk, true); });
    check([](auto& chunk) { on_device(chunk, true, Order::forwards); });
  }
}

BOOST_AUTO_TEST_CASE(the_gradient_is_the_slope_of_the_loss) {
  const std::int64_t vocabulary = 13;
  const Chunk<float> start(6, vocabulary, 1.5f);
  Chunk<float> gradient = start;
  reference(gradient, true);
  const auto sum_at = [&](std::size_t i, float step) {
    Chunk<float> moved = start;
    moved.logits[i] += step;
    reference(moved, false);
    double sum = 0.0;
    for (const float loss : moved.losses) sum += static_cast<double>(loss);
    return sum;
  };
  constexpr float step = 1.0f / 64;
  for (std::size_t i = 0; i < gradient.logits.size(); ++i) {
    if (i % static_cast<std::size_t>(gradient.stride) >= static_cast<std::size_t>(vocabulary)) continue;
    BOOST_REQUIRE_SMALL((sum_at(i, step) - sum_at(i, -step)) / (2.0 * static_cast<double>(step)) -
                            static_cast<double>(gradient.logits[i]),
                        1e-4);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
