// Products beside float64, by either library: matrices that lie either way, with and without a bias, of rows
// and of columns, into memory that is there and out of it.
#include "comigs/model/products.hpp"

#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include "support/tensors.hpp"

namespace comigs::model {

namespace {

constexpr std::int64_t rows = 96, in = 130, out = 150;  // more multiplications than go to MKL unasked

struct Operands {
  Operands(bool matrix_across, bool rows_across, bool has_bias, at::ScalarType type = at::kFloat) {
    const auto drawn = [&](std::int64_t r, std::int64_t c, bool across, int seed) {
      return across ? test::normal({c, r}, seed, 1.0, type).t() : test::normal({r, c}, seed, 1.0, type);
    };
    x = drawn(rows, in, rows_across, 1);
    matrix = drawn(in, out, matrix_across, 2);
    if (has_bias) bias = test::normal({out}, 3, 1.0, type);
  }
  [[nodiscard]] at::Tensor expected() const {
    const at::Tensor y = x.to(at::kDouble).mm(matrix.to(at::kDouble));
    return bias.defined() ? y + bias.to(at::kDouble) : y;
  }

  at::Tensor x, matrix, bias;
};

const auto both = boost::unit_test::data::make({false, true});
constexpr double tolerance = 2e-6;

// The middle of something wider.
at::Tensor narrowed() { return test::normal({rows, out + 20}, 4).narrow(1, 7, out); }

}  // namespace

BOOST_AUTO_TEST_SUITE(products)

BOOST_DATA_TEST_CASE(are_those_of_float64, both* both* both, matrix_across, rows_across, has_bias) {
  const Operands of(matrix_across, rows_across, has_bias);
  BOOST_TEST(test::close(product(of.x, of.matrix, of.bias), of.expected(), tolerance));
  at::Tensor to = narrowed();
  product_to(to, of.x, of.matrix, of.bias);
  BOOST_TEST(test::close(to, of.expected(), tolerance));
  if (has_onednn())
    BOOST_TEST(test::close(onednn_product(of.x, of.matrix, of.bias), of.expected(), tolerance));
}

BOOST_DATA_TEST_CASE(are_added_and_have_room, both* both, matrix_across, rows_across) {
  const Operands of(matrix_across, rows_across, false);
  at::Tensor to = narrowed();
  const at::Tensor before = to.clone();
  add_product(to, of.x, of.matrix);
  BOOST_TEST(test::close(to, before.to(at::kDouble) + of.expected(), tolerance));
  BOOST_TEST(test::close(product_in([] { return narrowed(); }, of.x, of.matrix), of.expected(), tolerance));
}

BOOST_AUTO_TEST_CASE(keep_their_precision) {
  for (const auto type : {at::kBFloat16, at::kDouble}) {
    const Operands of(true, false, true, type);
    const at::Tensor found = product(of.x, of.matrix, of.bias);
    BOOST_TEST((found.scalar_type() == type));
    BOOST_TEST(test::close(found, of.expected(), type == at::kDouble ? 1e-12 : 8e-3));
  }
}

BOOST_AUTO_TEST_CASE(track_nothing) {
  Operands of(false, false, true);
  of.x.requires_grad_();
  of.matrix.requires_grad_();
  BOOST_TEST(!product(of.x, of.matrix, of.bias).requires_grad());
  BOOST_TEST(!product(of.x.narrow(0, 0, 1), of.matrix, of.bias).requires_grad());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
