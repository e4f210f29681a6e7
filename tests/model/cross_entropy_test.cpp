// The chunked cross entropy against LibTorch's own on a tensor of all logits: losses, and gradients of both
// inputs.
#include "comigs/model/cross_entropy.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>

#include "support/tensors.hpp"

namespace comigs::model {

namespace {

using test::close;

// So many entries that a chunk has 1024 tokens; the sizes below lie around its multiples.
constexpr std::int64_t large_vocabulary = 1 << 15;
constexpr std::int64_t width = 6;

struct Problem {
  Problem(std::int64_t tokens, std::int64_t vocabulary, bool ignore_some)
      : hidden(test::normal({tokens, width}, 1).set_requires_grad(true)),
        head(test::normal({vocabulary, width}, 2).set_requires_grad(true)),
        targets(at::arange(tokens, at::kLong).mul(7919).remainder(vocabulary)) {
    if (!ignore_some) return;
    for (std::int64_t i = 0; i < tokens; i += 3) targets[i] = -1;
  }

  // In float64: of so many terms float32's own sums are 1e-5 off.
  [[nodiscard]] at::Tensor reference() const {
    const at::Tensor logits = hidden.to(at::kDouble).matmul(head.to(at::kDouble).t());
    return at::cross_entropy_loss(logits, targets, {}, at::Reduction::Mean, -1);
  }

  at::Tensor hidden, head, targets;
};

struct Result {
  at::Tensor loss, hidden, head;
};

Result run(const Problem& problem, const at::Tensor& loss) {
  problem.hidden.mutable_grad() = at::Tensor();
  problem.head.mutable_grad() = at::Tensor();
  // A factor, so that a backward pass that ignores what comes from above is seen.
  (2.5 * loss).backward();
  return {loss.detach(), problem.hidden.grad(), problem.head.grad()};
}

void compare(const Problem& problem) {
  const Result found = run(problem, cross_entropy(problem.hidden, problem.head, problem.targets));
  const Result expected = run(problem, problem.reference());
  BOOST_TEST(close(found.loss, expected.loss, 1e-5));
  BOOST_TEST(close(found.hidden, expected.hidden, 2e-5));
  BOOST_TEST(close(found.head, expected.head, 2e-5));
}

struct Rounded {
  at::Tensor hidden, head;
};

// The problem's numbers in bfloat16; the problem has them from now on, too.
Rounded in_bf16(Problem& exact) {
  const Rounded rounded{.hidden = exact.hidden.detach().to(at::kBFloat16).set_requires_grad(true),
                        .head = exact.head.detach().to(at::kBFloat16)};
  exact.hidden = rounded.hidden.detach().to(at::kFloat).set_requires_grad(true);
  exact.head = rounded.head.to(at::kFloat).set_requires_grad(true);
  return rounded;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cross_entropies)

BOOST_AUTO_TEST_CASE(sizes_around_the_chunk) {
  for (const std::int64_t tokens : {1, 17, 1023, 1024, 1025, 2049})
    compare({tokens, large_vocabulary, false});
}

BOOST_AUTO_TEST_CASE(tokens_without_target_count_for_nothing) {
  for (const std::int64_t tokens : {2, 33, 1026}) compare({tokens, large_vocabulary, true});
  compare({50, 11, true});
}

BOOST_AUTO_TEST_CASE(one_chunk_of_a_small_vocabulary) {
  for (const std::int64_t tokens : {1, 5, 100}) compare({tokens, 37, false});
}

BOOST_AUTO_TEST_CASE(closed_form_for_equal_logits) {
  const at::Tensor hidden = at::zeros({4, width}), head = test::normal({50, width}, 3);
  const at::Tensor targets = at::arange(4, at::kLong);
  BOOST_TEST(cross_entropy(hidden, head, targets).item<double>() == std::log(50.0),
             boost::test_tools::tolerance(1e-6));
  BOOST_TEST(
      cross_entropy_of_tokens(hidden, head, targets).sum(at::kDouble).item<double>() == 4 * std::log(50.0),
      boost::test_tools::tolerance(1e-6));
}

BOOST_AUTO_TEST_CASE(only_what_is_tracked_gets_a_gradient) {
  const Problem problem(20, 37, false);
  problem.head.set_requires_grad(false);
  cross_entropy(problem.hidden, problem.head, problem.targets).backward();
  BOOST_TEST(problem.hidden.grad().defined());
  BOOST_TEST(!problem.head.grad().defined());
}

BOOST_AUTO_TEST_CASE(no_target_at_all_is_no_loss) {
  const Problem problem(10, 37, false);
  const at::Tensor loss = cross_entropy(problem.hidden, problem.head, at::full({10}, -1, at::kLong));
  BOOST_TEST(loss.item<float>() == 0.0f);
  loss.backward();
  BOOST_TEST(problem.hidden.grad().abs().max().item<float>() == 0.0f);
}

BOOST_AUTO_TEST_CASE(large_logits_do_not_overflow) {
  const at::Tensor hidden = at::full({3, width}, 200.0), head = test::normal({37, width}, 4);
  const at::Tensor targets = at::arange(3, at::kLong);
  const at::Tensor expected = at::cross_entropy_loss(hidden.mm(head.t()).to(at::kDouble), targets);
  BOOST_TEST(close(cross_entropy(hidden, head, targets), expected, 1e-5));
}

BOOST_AUTO_TEST_CASE(of_tokens_sums_to_the_mean_s_multiple) {
  const Problem problem(1031, large_vocabulary, true);
  const at::NoGradGuard no_gradients;
  const at::Tensor sum =
      cross_entropy_of_tokens(problem.hidden, problem.head, problem.targets).sum(at::kDouble);
  BOOST_TEST((sum.scalar_type() == at::kDouble));
  const double count = problem.targets.ge(0).sum().item<double>();
  BOOST_TEST(close(sum / count, problem.reference(), 1e-5));
}

BOOST_AUTO_TEST_CASE(a_weight_is_a_factor_of_all) {
  const Problem problem(33, 37, true);
  const Result plain = run(problem, cross_entropy(problem.hidden, problem.head, problem.targets)),
               weighted = run(problem, cross_entropy(problem.hidden, problem.head, problem.targets,
                                                     at::full({}, 0.375)));
  BOOST_TEST(close(weighted.loss, 0.375 * plain.loss, 1e-6));
  BOOST_TEST(close(weighted.hidden, 0.375 * plain.hidden, 1e-6));
  BOOST_TEST(close(weighted.head, 0.375 * plain.head, 1e-6));
}

BOOST_AUTO_TEST_CASE(bf16_keeps_its_type_and_float32_sums) {
  // 72 targets: 1/72 in bfloat16 is 0.2 % too large.
  Problem exact(108, large_vocabulary, true);
  const auto [hidden, head] = in_bf16(exact);
  const at::Tensor loss = cross_entropy(hidden, head, exact.targets);
  const Result expected = run(exact, exact.reference());
  BOOST_TEST((loss.scalar_type() == at::kFloat));
  BOOST_TEST(close(loss, expected.loss, 1e-3));
  (2.5 * loss).backward();
  BOOST_TEST((hidden.grad().scalar_type() == at::kBFloat16));
  BOOST_TEST(test::relative_error(hidden.grad(), expected.hidden) < 1e-2);
  BOOST_TEST(std::abs(test::times(hidden.grad(), expected.hidden) - 1) < 5e-4);
}

// What is rounded to bf16 and then multiplied by 1/255 (1.0039 times a power of two) is nearly all rounded
// upwards: 0.17 % too long.
BOOST_AUTO_TEST_CASE(the_mean_s_factor_is_not_rounded_apart) {
  Problem exact(255, large_vocabulary, false);
  const auto [hidden, head] = in_bf16(exact);
  exact.reference().backward();
  for (const double weight : {1.0, 0.25}) {
    hidden.mutable_grad() = at::Tensor();
    cross_entropy(hidden, head, exact.targets, at::full({}, weight)).backward();
    BOOST_TEST(std::abs(test::times(hidden.grad(), weight * exact.hidden.grad()) - 1) < 5e-4);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
