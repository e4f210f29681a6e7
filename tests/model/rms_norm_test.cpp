// The norm's own passes beside LibTorch's operations, in both precisions and at widths that vectors do not
// divide.
#include "rms_norm.hpp"

#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include "support/tensors.hpp"

namespace comigs::model {

namespace {

constexpr double epsilon = 1e-5;

struct Passes {
  at::Tensor y, d_x;
};

template <class Norm>
Passes passes(const at::Tensor& values, const at::Tensor& d_y, const Norm& norm) {
  const at::Tensor x = values.detach().clone().set_requires_grad(true), y = norm(x);
  y.backward(d_y);
  return {y.detach(), x.grad()};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(root_mean_square_norm)

BOOST_DATA_TEST_CASE(passes_are_those_of_float64,
                     boost::unit_test::data::make({5, 7, 64, 576, 1031}) *
                         boost::unit_test::data::make({at::kFloat, at::kBFloat16}),
                     width, type) {
  const at::Tensor x = test::normal({5, 3, width}, 1, 3.0, type),
                   weight = test::normal({width}, 2, 0.5, type) + 1.0,
                   d_y = test::normal({5, 3, width}, 3, 1.0, type);
  const Passes found = passes(x, d_y, [&](const at::Tensor& of) { return rms_norm(of, weight, epsilon); });
  const Passes expected = passes(x.to(at::kDouble), d_y.to(at::kDouble), [&](const at::Tensor& of) {
    return of * (of.square().mean(-1, true) + epsilon).rsqrt() * weight.to(at::kDouble);
  });
  const double tolerance = type == at::kFloat ? 2e-6 : 5e-3;  // bfloat16: one rounding
  BOOST_TEST(found.y.scalar_type() == type);
  BOOST_TEST(test::close(found.y, expected.y, tolerance));
  BOOST_TEST(test::close(found.d_x, expected.d_x, tolerance));
}

BOOST_AUTO_TEST_CASE(views_and_tracked_weights_are_taken_too) {
  const at::Tensor whole = test::normal({4, 32}, 4), weight = test::normal({16}, 5);
  const at::Tensor part = whole.narrow(1, 8, 16);
  BOOST_TEST(test::close(rms_norm(part, weight, epsilon), at::rms_norm(part, {16}, weight, epsilon), 1e-6));
  const at::Tensor tracked = weight.clone().set_requires_grad(true);
  rms_norm(part, tracked, epsilon).sum().backward();
  BOOST_TEST(tracked.grad().defined());
}

BOOST_AUTO_TEST_CASE(zeros_have_a_norm) {
  const at::Tensor x = at::zeros({2, 8}).set_requires_grad(true);
  const at::Tensor y = rms_norm(x, at::ones({8}), epsilon);
  BOOST_TEST(y.abs().max().item<float>() == 0.0f);
  y.sum().backward();
  BOOST_TEST(x.grad().isfinite().all().item<bool>());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
