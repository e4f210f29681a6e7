// The norms' own passes beside float64 by LibTorch's autograd, in both precisions and at widths that vectors
// do not divide.
#include "comigs/model/norm.hpp"

#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include "support/tensors.hpp"

namespace comigs::model {

namespace {

namespace bdata = boost::unit_test::data;

constexpr double epsilon = 1e-5;

at::Tensor in_float64(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(at::kDouble) : tensor; }

// As the papers have them.
at::Tensor by_definition(const Norm& norm, const at::Tensor& x) {
  const at::Tensor centred = norm.kind == Norm::Kind::layer ? x - x.mean(-1, true) : x;
  const at::Tensor y =
      centred * (centred.square().mean(-1, true) + norm.epsilon).rsqrt() * in_float64(norm.weight);
  return norm.bias.defined() ? y + in_float64(norm.bias) : y;
}

Norm norm_of(bool centred, std::int64_t width, at::ScalarType type) {
  return {.kind = centred ? Norm::Kind::layer : Norm::Kind::root_mean_square,
          .weight = test::normal({width}, 2, 0.5, type) + 1.0,
          .bias = centred ? test::normal({width}, 7, 0.5, type) : at::Tensor(),
          .epsilon = epsilon};
}

at::Tensor leaf(const at::Tensor& values) { return values.detach().clone().set_requires_grad(true); }

// Everything that a norm within a layer gives, and every gradient of a sum over it.
struct Passes {
  at::Tensor sum, y, read, d_x, d_added, d_router;
};

Passes passes(const Norm& of, const at::Tensor& x, const at::Tensor& added, const at::Tensor& router,
              const std::vector<at::Tensor>& gradients) {
  ResidualStream stream{.x = leaf(x), .waiting = leaf(added)};
  const at::Tensor from = stream.x, waiting = stream.waiting, reader = leaf(router);
  const Normed found = norm(of, stream, reader);
  ((stream.x * gradients[0]).sum(at::kDouble) + (found.x * gradients[1]).sum(at::kDouble) +
   (found.read * gradients[2]).sum(at::kDouble))
      .backward();
  return {stream.x.detach(), found.x.detach(), found.read.detach(),
          from.grad(),       waiting.grad(),   reader.grad()};
}

Passes expected_passes(const Norm& of, const at::Tensor& x, const at::Tensor& added, const at::Tensor& router,
                       const std::vector<at::Tensor>& gradients) {
  const at::Tensor from = leaf(in_float64(x)), waiting = leaf(in_float64(added)),
                   reader = leaf(in_float64(router));
  const at::Tensor sum = from + waiting, y = by_definition(of, sum), read = at::linear(y, reader);
  ((sum * gradients[0]).sum() + (y * gradients[1]).sum() + (read * gradients[2]).sum()).backward();
  return {sum.detach(), y.detach(), read.detach(), from.grad(), waiting.grad(), reader.grad()};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(norms)

BOOST_DATA_TEST_CASE(passes_are_those_of_float64,
                     bdata::make({5, 7, 64, 576, 1031}) * bdata::make({at::kFloat, at::kBFloat16}) *
                         bdata::make({false, true}),
                     width, type, centred) {
  const at::Tensor x = test::normal({5, 3, width}, 1, 3.0, type),
                   d_y = test::normal({5, 3, width}, 3, 1.0, type);
  const Norm of = norm_of(centred, width, type);
  const at::Tensor from = leaf(x), found = norm(of, from), exact = leaf(in_float64(x)),
                   expected = by_definition(of, exact);
  found.backward(d_y);
  expected.backward(in_float64(d_y));
  const double tolerance = type == at::kFloat ? 4e-6 : 5e-3;  // bfloat16: one rounding
  BOOST_TEST(found.scalar_type() == type);
  BOOST_TEST(test::close(found.detach(), expected.detach(), tolerance));
  BOOST_TEST(test::close(from.grad(), exact.grad(), tolerance));
}

BOOST_DATA_TEST_CASE(what_is_beside_a_norm_goes_with_it,
                     bdata::make({7, 64, 1031}) * bdata::make({at::kFloat, at::kBFloat16}) *
                         bdata::make({false, true}),
                     width, type, centred) {
  const Norm of = norm_of(centred, width, type);
  const at::Tensor x = test::normal({9, width}, 1, 3.0, type), router = test::normal({3, width}, 5, 0.3);
  // Whose sums are numbers of bfloat16, too.
  const at::Tensor added = (x * -0.5).to(type);
  const std::vector<at::Tensor> gradients = {test::normal({9, width}, 3), test::normal({9, width}, 4),
                                             test::normal({9, 3}, 6)};
  const Passes found = passes(of, x, added, router, gradients),
               expected = expected_passes(of, x, added, router, gradients);
  const double tolerance = type == at::kFloat ? 1e-5 : 2e-2;
  BOOST_TEST(test::close(found.sum, expected.sum, tolerance));
  BOOST_TEST(test::close(found.y, expected.y, tolerance));
  BOOST_TEST(test::close(found.read, expected.read, tolerance));
  BOOST_TEST(test::close(found.d_x, expected.d_x, tolerance));
  BOOST_TEST(test::same_bits(found.d_added, found.d_x));
  BOOST_TEST(test::close(found.d_router, expected.d_router, tolerance));
}

BOOST_AUTO_TEST_CASE(nobody_need_ask_for_all_of_it) {
  const Norm of = norm_of(true, 16, at::kFloat);
  const at::Tensor values = test::normal({4, 16}, 4), router = test::normal({2, 16}, 5);
  // The sum alone: what is read is nobody's.
  ResidualStream stream{.x = leaf(values), .waiting = values};
  const at::Tensor x = stream.x;
  const Normed unread = norm(of, stream, router);
  stream.x.sum().backward();
  BOOST_TEST(test::same_bits(x.grad(), at::ones({4, 16})));
  BOOST_TEST(unread.x.requires_grad());
  // The router alone.
  ResidualStream again{.x = values, .waiting = {}};
  const at::Tensor reader = leaf(router);
  const Normed read = norm(of, again, reader);
  read.read.sum().backward();
  BOOST_TEST(test::close(reader.grad(), read.x.detach().sum(0, true).expand({2, 16}), 1e-5));
  BOOST_TEST(!again.waiting.defined());
  BOOST_TEST(!read.x.requires_grad());  // so that no layer behind makes gradients of it
}

BOOST_AUTO_TEST_CASE(views_tracked_weights_and_float64_are_taken_too) {
  const at::Tensor whole = test::normal({4, 32}, 4), part = whole.narrow(1, 8, 16);
  Norm of = norm_of(false, 16, at::kFloat);
  BOOST_TEST(test::close(norm(of, part), at::rms_norm(part, {16}, of.weight, epsilon), 1e-6));
  ResidualStream stream{.x = part, .waiting = part};
  const at::Tensor router = test::normal({2, 16}, 5);
  BOOST_TEST(test::close(norm(of, stream, router).read,
                         at::linear(by_definition(of, 2 * part).to(at::kFloat), router), 1e-5));
  of.weight = leaf(of.weight);
  norm(of, part).sum().backward();
  BOOST_TEST(of.weight.grad().defined());
  of.weight = in_float64(of.weight.detach());
  stream = {.x = in_float64(part), .waiting = in_float64(part)};
  const Normed found = norm(of, stream, router);
  BOOST_TEST(test::close(found.x, by_definition(of, 2 * in_float64(part)), 1e-12));
  BOOST_TEST(test::close(found.read, at::linear(found.x.to(at::kFloat), router), 1e-6));
}

// Its squares are no numbers of float32: a row of zeros would look like a result.
BOOST_AUTO_TEST_CASE(what_overflows_is_seen) {
  for (const bool centred : {false, true}) {
    const at::Tensor x = test::normal({3, 64}, 1);
    x.select(0, 1).mul_(1e20);
    const at::Tensor finite = norm(norm_of(centred, 64, at::kFloat), x).isfinite().all(1);
    BOOST_TEST((finite[0].item<bool>() && !finite[1].item<bool>() && finite[2].item<bool>()));
  }
}

BOOST_AUTO_TEST_CASE(zeros_have_a_norm) {
  for (const bool centred : {false, true}) {
    Norm of = norm_of(centred, 8, at::kFloat);
    of.bias = at::Tensor();
    const at::Tensor x = at::zeros({2, 8}).set_requires_grad(true), y = norm(of, x);
    BOOST_TEST(y.abs().max().item<float>() == 0.0f);
    y.sum().backward();
    BOOST_TEST(x.grad().isfinite().all().item<bool>());
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
