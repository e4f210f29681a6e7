// Weights in one piece are the weights one by one.
#include "comigs/model/packed_weights.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include "comigs/model/base_model.hpp"
#include "support/tensors.hpp"
#include "support/tiny_base.hpp"

namespace comigs::model {

BOOST_AUTO_TEST_SUITE(packed)

BOOST_AUTO_TEST_CASE(weights_come_back_in_the_precision_asked_for) {
  const Architecture architecture = test::tiny_architecture();
  const std::vector<WeightSpec> specs = weight_specs(architecture);
  const test::Weights weights = test::random_weights(architecture);
  const auto one_by_one = [&](const WeightSpec& spec) { return weights.at(spec.name); };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor piece = pack_weights(specs, one_by_one, dtype, at::kCPU);
    const WeightSource source = packed_weights(piece, specs, dtype);
    const auto* const begin = static_cast<const std::byte*>(piece.const_data_ptr());
    const std::byte* end_of_last = begin;
    for (const WeightSpec& spec : specs) {
      const at::Tensor weight = source(spec);
      const auto* const at = static_cast<const std::byte*>(weight.const_data_ptr());
      BOOST_TEST(test::same_bits(weight, weights.at(spec.name).to(dtype)), spec.name);
      BOOST_TEST((at - begin) % 256 == 0);
      BOOST_TEST((at >= end_of_last), spec.name << " begins inside the weight before it");
      end_of_last = at + weight.nbytes();
    }
    BOOST_TEST((end_of_last <= begin + piece.nbytes()));
  }
}

BOOST_AUTO_TEST_CASE(a_model_of_the_piece_is_the_same_model) {
  const Architecture architecture = test::tiny_architecture();
  const std::vector<WeightSpec> specs = weight_specs(architecture);
  const test::Weights weights = test::random_weights(architecture);
  const at::Tensor piece = pack_weights(
      specs, [&](const WeightSpec& spec) { return weights.at(spec.name); }, at::kFloat, at::kCPU);
  const auto packed = make_base_model(architecture, packed_weights(piece, specs, at::kFloat)),
             usual = test::tiny_base(architecture);
  Hooks bare;
  const at::Tensor tokens = at::arange(20, at::kLong).view({2, 10});
  BOOST_TEST(test::same_bits(forward(*packed, tokens, bare), forward(*usual, tokens, bare)));
}

BOOST_AUTO_TEST_CASE(nothing_is_opened_without_a_handle) {
  BOOST_TEST(!open_shared("", weight_specs(test::tiny_architecture()), at::kFloat, at::kCPU).defined());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
