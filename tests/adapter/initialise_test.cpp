// What users begin with: the same where they share, their own elsewhere.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/adapter/parameters.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

using test::same_bits;

Parameters drawn(std::uint64_t seed, std::int64_t user, std::int64_t experts = 2,
                 std::vector<std::int64_t> generalists = {0}, bool shared_attention = true) {
  Parameters parameters(
      test::tiny_architecture(),
      {.experts = experts, .generalists = generalists, .lora_rank = 4, .shared_attention = shared_attention},
      at::kCPU);
  parameters.initialise(seed, user);
  return parameters;
}

at::Tensor part(const Parameters& parameters, const Slice& slice) { return view(parameters.values(), slice); }

void check_uniform(const at::Tensor& drawn, std::int64_t in) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  const at::Tensor values = drawn.detach().to(at::kDouble);
  BOOST_TEST(values.abs().max().item<double>() <= bound * (1 + 1e-6));
  BOOST_TEST(values.abs().max().item<double>() > 0.8 * bound);
  // Variance of U(-b, b): b^2 / 3, within five deviations of a mean of squares.
  const double error = 5 * bound * bound * std::sqrt(4.0 / 45.0 / static_cast<double>(values.numel()));
  BOOST_TEST(std::abs(values.square().mean().item<double>() - bound * bound / 3) < error);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(initialisation)

BOOST_AUTO_TEST_CASE(A_is_kaiming_uniform_and_B_zero) {
  const Parameters parameters = drawn(1, 0);
  for (const LayerParameters& layer : lora_layers(parameters)) {
    std::vector<const Lora*> loras = {&layer.attention[0], &layer.attention[1]};
    for (const Expert& expert : layer.experts) loras.insert(loras.end(), {&expert.up[0], &expert.down});
    for (const Lora* lora : loras) {
      check_uniform(lora->A, lora->A.size(1));
      BOOST_TEST(lora->B.detach().abs().max().item<float>() == 0.0f);
    }
    check_uniform(layer.router, 16);
  }
}

BOOST_AUTO_TEST_CASE(drawing_depends_on_the_arguments_alone) {
  const Parameters first = drawn(1, 0);
  Parameters second = test::random_parameters(test::tiny_architecture(), first.user_model(), 3);
  second.initialise(1, 0);
  BOOST_TEST(same_bits(first.values(), second.values()));
  BOOST_TEST(!same_bits(part(first, first.layout().slice(select::attention())),
                        part(drawn(2, 0), first.layout().slice(select::attention()))));
}

BOOST_AUTO_TEST_CASE(shared_parts_are_alike_and_own_parts_differ) {
  const Parameters mine = drawn(1, 0), yours = drawn(1, 1);
  BOOST_TEST(same_bits(part(mine, mine.layout().slice(select::attention())),
                       part(yours, yours.layout().slice(select::attention()))));
  BOOST_TEST(same_bits(part(mine, mine.layout().slice(select::expert(0))),
                       part(yours, yours.layout().slice(select::expert(0)))));
  BOOST_TEST(!same_bits(part(mine, mine.layout().slice(select::expert(1))),
                        part(yours, yours.layout().slice(select::expert(1)))));
  BOOST_TEST(!same_bits(part(mine, mine.layout().slice(select::routers())),
                        part(yours, yours.layout().slice(select::routers()))));
}

BOOST_AUTO_TEST_CASE(shared_parts_do_not_depend_on_the_number_of_experts) {
  const Parameters two = drawn(1, 0, 2), four = drawn(1, 3, 4), one = drawn(1, 2, 1);
  for (const Parameters* other : {&four, &one}) {
    BOOST_TEST(same_bits(part(two, two.layout().slice(select::attention())),
                         part(*other, other->layout().slice(select::attention()))));
    BOOST_TEST(same_bits(part(two, two.layout().slice(select::expert(0))),
                         part(*other, other->layout().slice(select::expert(0)))));
  }
}

BOOST_AUTO_TEST_CASE(all_generalists_are_shared_and_no_two_experts_alike) {
  const Parameters mine = drawn(1, 0, 3, {0, 1}), yours = drawn(1, 1, 3, {0, 1});
  BOOST_TEST(same_bits(part(mine, mine.layout().slice(select::expert(1))),
                       part(yours, yours.layout().slice(select::expert(1)))));
  BOOST_TEST(!same_bits(part(mine, mine.layout().slice(select::expert(2))),
                        part(yours, yours.layout().slice(select::expert(2)))));
  for (const auto& [a, b] : {std::pair{0, 1}, std::pair{0, 2}, std::pair{1, 2}})
    BOOST_TEST(!same_bits(part(mine, mine.layout().slice(select::expert(a))),
                          part(mine, mine.layout().slice(select::expert(b)))));
  // Nor two layers, nor two sites of one.
  const std::vector<LayerParameters> layers = lora_layers(mine);
  BOOST_TEST(!same_bits(layers[0].attention[0].A, layers[1].attention[0].A));
  BOOST_TEST(!same_bits(layers[0].attention[0].A, layers[0].attention[1].A));
  BOOST_TEST(!same_bits(layers[0].attention[0].A, layers[0].experts[0].up[0].A));
  BOOST_TEST(!same_bits(layers[0].router, layers[1].router));
}

BOOST_AUTO_TEST_CASE(attention_of_ones_own_is_drawn_by_user) {
  const Parameters mine = drawn(1, 0, 2, {}, false), yours = drawn(1, 1, 2, {}, false);
  BOOST_TEST(!same_bits(part(mine, mine.layout().slice(select::attention())),
                        part(yours, yours.layout().slice(select::attention()))));
  BOOST_TEST(!same_bits(part(mine, mine.layout().slice(select::expert(0))),
                        part(yours, yours.layout().slice(select::expert(0)))));
}

BOOST_AUTO_TEST_CASE(a_generalist_is_drawn_by_its_number_wherever_it_lies) {
  const Parameters both = drawn(1, 0, 3, {0, 2}), one = drawn(1, 1, 2, {2});
  BOOST_TEST(same_bits(part(both, both.layout().slice(select::expert(1))),
                       part(one, one.layout().slice(select::expert(0)))));
  BOOST_TEST(!same_bits(part(both, both.layout().slice(select::expert(0))),
                        part(one, one.layout().slice(select::expert(0)))));
}

BOOST_AUTO_TEST_CASE(ranks_begin_alike_as_far_as_they_go) {
  // HetLoRA and FlexLoRA: users of different ranks share what they both have of A.
  const UserModel small{.experts = 1, .lora_rank = 3, .gate = Gate::equal},
      large{.experts = 1, .lora_rank = 5, .gate = Gate::equal};
  Parameters few(test::tiny_architecture(), small, at::kCPU),
      many(test::tiny_architecture(), large, at::kCPU);
  few.initialise(1, 0);
  many.initialise(1, 1);
  for (std::size_t l = 0; l < few.loras().size(); ++l)
    BOOST_TEST(same_bits(few.loras()[l].A.detach(), many.loras()[l].A.detach().narrow(0, 0, 3)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
