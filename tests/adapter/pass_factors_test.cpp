// The factors of a pass against the leaves that they are made of: in each pair gamma is in one of the two,
// once, and so it is in the gradients that come back.
#include "pass_factors.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

namespace {

const UserModel user_model{.experts = 2, .lora_rank = 2, .attention_rank = 4, .lora_alpha = 3.0};
const double gamma = user_model.scale(), gamma_of_attention = user_model.attention_scale();

at::Tensor exactly(const at::Tensor& leaf) { return leaf.detach().to(at::kDouble); }

}  // namespace

BOOST_AUTO_TEST_SUITE(factors_of_a_pass)

BOOST_AUTO_TEST_CASE(each_pair_has_gamma_once) {
  BOOST_TEST(gamma != gamma_of_attention);
  Parameters parameters = test::random_parameters(test::tiny_architecture(), user_model, 3);
  parameters.track(true, false);
  const std::vector<LayerParameters> leaves = lora_layers(parameters);
  const std::vector<LayerFactors> factors = pass_factors(parameters, at::kDouble);
  BOOST_TEST_REQUIRE(factors.size() == leaves.size());
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (std::size_t layer = 0; layer < leaves.size(); ++layer) {
    const LayerFactors& found = factors[layer];
    for (std::size_t site = 0; site < found.attention.size(); ++site) {
      const Lora &pair = found.attention[site], &leaf = leaves[layer].attention[site];
      BOOST_TEST(test::same_bits(pair.A.detach(), exactly(leaf.A) * gamma_of_attention));
      BOOST_TEST(test::same_bits(pair.B.detach(), exactly(leaf.B)));
      loss = loss + pair.A.sum() + pair.B.sum();
    }
    for (std::int64_t e = 0; e < user_model.experts; ++e) {
      const Expert& leaf = leaves[layer].experts[static_cast<std::size_t>(e)];
      const std::int64_t R = user_model.lora_rank;
      const auto of = [&](const at::Tensor& all, std::int64_t dimension) {
        return all.detach().narrow(dimension, e * R, R);
      };
      BOOST_TEST(test::same_bits(of(found.experts.up_A, 0), exactly(leaf.up[0].A) * gamma));
      BOOST_TEST(test::same_bits(found.experts.up_B[e].detach(), leaf.up[0].B.detach().t()));
      BOOST_TEST(test::same_bits(found.experts.down_A[e].detach(), leaf.down.A.detach()));
      BOOST_TEST(test::same_bits(of(found.experts.down_B, 1), exactly(leaf.down.B) * gamma));
    }
    for (const at::Tensor& all :
         {found.experts.up_A, found.experts.up_B, found.experts.down_A, found.experts.down_B})
      loss = loss + all.sum();
  }
  loss.backward();
  // What a sum over a factor gives each number of its leaf.
  const auto check = [&](const Part& part, const at::Tensor& gradient) {
    const bool of_attention = part.role == Role::attention, is_A = part.tag == Part::Tag::A,
               is_up = part.site + 1 < parameters.layout().projections();
    const bool has_it = of_attention || is_up ? is_A : !is_A;
    const double expected = part.role == Role::router ? 0.0
                            : !has_it                 ? 1.0
                            : of_attention            ? gamma_of_attention
                                                      : gamma;
    BOOST_TEST((gradient - expected).abs().max().item<double>() < 1e-6, part.name << " " << part.site);
  };
  for (const Part& part : parameters.layout().parts())
    check(part, parameters.gradients().narrow(0, part.offset, part.rows * part.columns).to(at::kDouble));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
