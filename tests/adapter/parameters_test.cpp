// The flat block: who lies where, and that every tensor is a view of it.
#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/lora_experts.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>

#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

using test::close;

constexpr std::int64_t L = 2, C = 16, F = 64, R = 3;

UserModel user_with(std::int64_t experts, Gate gate = Gate::top_k) {
  return {
      .experts = experts, .generalists = {0}, .lora_rank = R, .lora_alpha = 6.0, .top_k = 2, .gate = gate};
}

Parameters make(const UserModel& user_model) { return {test::tiny_architecture(), user_model, at::kCPU}; }

// Checks that tensors lie one behind the other in both blocks.
struct Walk {
  const Parameters& parameters;
  std::int64_t offset = 0;

  void expect(const at::Tensor& tensor, const std::vector<std::int64_t>& shape) {
    BOOST_TEST(tensor.sizes().vec() == shape);
    BOOST_TEST(tensor.is_contiguous());
    BOOST_TEST((tensor.data_ptr<float>() == parameters.values().data_ptr<float>() + offset));
    BOOST_TEST((tensor.grad().data_ptr<float>() == parameters.gradients().data_ptr<float>() + offset));
    BOOST_TEST(tensor.grad().sizes().vec() == shape);
    BOOST_TEST(tensor.is_leaf());
    offset += tensor.numel();
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(parameter_block)

BOOST_AUTO_TEST_CASE(order_is_attention_experts_routers) {
  for (const std::int64_t experts : {1, 2, 4}) {
    const Parameters parameters = make(user_with(experts));
    Walk walk{parameters};
    for (const LayerParameters& layer : lora_layers(parameters)) {
      BOOST_TEST_REQUIRE(layer.attention.size() == 2u);
      walk.expect(layer.attention[0].A, {R, C});
      walk.expect(layer.attention[1].A, {R, C});
    }
    BOOST_TEST(parameters.layout().slice(select::attention(Factors::A)).offset == 0);
    BOOST_TEST(parameters.layout().slice(select::attention(Factors::A)).count == walk.offset);
    BOOST_TEST(parameters.layout().slice(select::attention(Factors::B)).offset == walk.offset);
    for (const LayerParameters& layer : lora_layers(parameters)) {
      walk.expect(layer.attention[0].B, {3 * C, R});
      walk.expect(layer.attention[1].B, {C, R});
    }
    BOOST_TEST(parameters.layout().slice(select::attention()).offset == 0);
    BOOST_TEST(parameters.layout().slice(select::attention()).count == walk.offset);
    for (std::int64_t e = 0; e < experts; ++e) {
      BOOST_TEST(parameters.layout().slice(select::expert(e)).offset == walk.offset);
      for (const LayerParameters& layer : lora_layers(parameters)) {
        BOOST_TEST_REQUIRE(layer.experts.size() == static_cast<std::size_t>(experts));
        walk.expect(layer.experts[static_cast<std::size_t>(e)].up[0].A, {R, C});
        walk.expect(layer.experts[static_cast<std::size_t>(e)].down.A, {R, F});
      }
      BOOST_TEST(parameters.layout().slice(select::expert(e, Factors::B)).offset == walk.offset);
      for (const LayerParameters& layer : lora_layers(parameters)) {
        walk.expect(layer.experts[static_cast<std::size_t>(e)].up[0].B, {F, R});
        walk.expect(layer.experts[static_cast<std::size_t>(e)].down.B, {C, R});
      }
      BOOST_TEST(parameters.layout().slice(select::expert(e)).offset +
                     parameters.layout().slice(select::expert(e)).count ==
                 walk.offset);
    }
    BOOST_TEST(parameters.layout().slice(select::factors()).count == walk.offset);
    BOOST_TEST(parameters.layout().slice(select::experts()).offset ==
               parameters.layout().slice(select::attention()).count);
    BOOST_TEST(parameters.layout().slice(select::experts()).count ==
               experts * parameters.layout().slice(select::expert(0)).count);
    BOOST_TEST(parameters.layout().slice(select::routers()).offset == walk.offset);
    for (const LayerParameters& layer : lora_layers(parameters))
      if (experts > 1) walk.expect(layer.router, {experts, C});
    BOOST_TEST(parameters.layout().slice(select::routers()).count == (experts > 1 ? L * experts * C : 0));
    BOOST_TEST(parameters.values().numel() == walk.offset);
    BOOST_TEST(parameters.gradients().numel() == walk.offset);
    BOOST_TEST(parameters.values().numel() == walk.offset);
  }
}

BOOST_AUTO_TEST_CASE(sizes_follow_from_the_architecture) {
  const Parameters parameters = make(user_with(2));
  BOOST_TEST(parameters.layout().slice(select::attention()).count == L * R * (C + 3 * C + C + C));
  BOOST_TEST(parameters.layout().slice(select::expert(1)).count == L * R * 2 * (C + F));
}

BOOST_AUTO_TEST_CASE(shared_slices_lie_alike_for_users_with_other_numbers_of_experts) {
  const Parameters two = make(user_with(2)), four = make(user_with(4)), one = make(user_with(1));
  for (const Parameters* other : {&four, &one}) {
    BOOST_TEST(two.layout().slice(select::attention()).count ==
               other->layout().slice(select::attention()).count);
    BOOST_TEST(two.layout().slice(select::expert(0)).offset ==
               other->layout().slice(select::expert(0)).offset);
    BOOST_TEST(two.layout().slice(select::expert(0)).count == other->layout().slice(select::expert(0)).count);
  }
  BOOST_TEST(two.layout().slice(select::expert(1)).offset == four.layout().slice(select::expert(1)).offset);
}

BOOST_AUTO_TEST_CASE(values_and_gradients_are_one_memory) {
  Parameters parameters = make(user_with(2));
  at::Tensor values = parameters.values(), gradients = parameters.gradients();
  values.copy_(at::arange(values.numel(), at::kFloat));
  gradients.copy_(-at::arange(values.numel(), at::kFloat));
  const at::Tensor B = lora_layers(parameters)[1].experts[1].down.B;
  const std::int64_t offset = B.data_ptr<float>() - values.data_ptr<float>();
  BOOST_TEST(B.detach()[2][1].item<float>() == static_cast<float>(offset + 2 * R + 1));
  BOOST_TEST(B.grad()[2][1].item<float>() == -static_cast<float>(offset + 2 * R + 1));
  lora_layers(parameters)[1].experts[1].down.B.detach().fill_(-5.0);
  BOOST_TEST(values[offset].item<float>() == -5.0f);
}

BOOST_AUTO_TEST_CASE(gradients_of_a_backward_pass_add_up_in_the_block) {
  Parameters parameters = make(user_with(2));
  at::Tensor gradients = parameters.gradients();
  const at::Tensor A = lora_layers(parameters)[0].attention[0].A;
  for (int pass = 1; pass <= 2; ++pass) {
    (3.0 * A).sum().backward();
    const at::Tensor part = view(gradients, {0, A.numel()});
    BOOST_TEST(test::same_bits(part, at::full({A.numel()}, 3.0f * static_cast<float>(pass))));
    BOOST_TEST((A.grad().data_ptr<float>() == gradients.data_ptr<float>()));
  }
  BOOST_TEST(view(gradients, {A.numel(), gradients.numel() - A.numel()}).abs().max().item<float>() == 0.0f);
}

BOOST_AUTO_TEST_CASE(tracking_chooses_the_phase) {
  Parameters parameters = make(user_with(2));
  for (const auto& [lora, routers] :
       {std::pair{true, false}, std::pair{false, true}, std::pair{true, true}, std::pair{false, false}}) {
    parameters.track(lora, routers);
    for (const LayerParameters& layer : lora_layers(parameters)) {
      BOOST_TEST(layer.attention[1].B.requires_grad() == lora);
      BOOST_TEST(layer.experts[0].up[0].A.requires_grad() == lora);
      BOOST_TEST(layer.experts[1].down.B.requires_grad() == lora);
      BOOST_TEST(layer.router.requires_grad() == routers);
    }
  }
}

BOOST_AUTO_TEST_CASE(equal_gate_has_no_routers_and_no_gate_no_parameters) {
  const Parameters equal = make(user_with(2, Gate::equal));
  BOOST_TEST(equal.layout().slice(select::routers()).count == 0);
  BOOST_TEST(!lora_layers(equal)[0].router.defined());
  const Parameters nothing = make({.experts = 0, .generalists = {}, .gate = Gate::none});
  BOOST_TEST(nothing.values().numel() == 0);
  BOOST_TEST(lora_layers(nothing).size() == 2u);
  BOOST_TEST(lora_layers(nothing)[0].attention.empty());
  BOOST_TEST(nothing.layout().slice(select::factors()).count == 0);
}

BOOST_AUTO_TEST_CASE(scale_is_rank_stabilised) {
  BOOST_TEST((UserModel{.lora_rank = 16, .lora_alpha = 8.0}).scale() == 2.0);
  BOOST_TEST(user_with(2).scale() == 6.0 / std::sqrt(3.0), boost::test_tools::tolerance(1e-15));
}

BOOST_AUTO_TEST_CASE(update_norms_are_those_of_the_products) {
  const UserModel user_model = user_with(2);
  const Parameters parameters = test::random_parameters(test::tiny_architecture(), user_model, 5);
  const std::vector<float> norms = parameters.update_norms(3);
  BOOST_TEST_REQUIRE(norms.size() == static_cast<std::size_t>(L * 3 * 2));
  std::size_t next = 0;
  for (const LayerParameters& layer : lora_layers(parameters)) {
    for (const Expert& expert : layer.experts) {
      for (const Lora* lora : {&expert.up[0], &expert.down}) {
        const at::Tensor update =
            user_model.scale() * lora->B.detach().to(at::kDouble).mm(lora->A.detach().to(at::kDouble));
        BOOST_TEST(norms[next++] == static_cast<float>(update.norm().item<double>()),
                   boost::test_tools::tolerance(1e-5f));
      }
    }
    BOOST_TEST(std::isnan(norms[next++]));
    BOOST_TEST(std::isnan(norms[next++]));
  }
}

BOOST_AUTO_TEST_CASE(what_is_stored_is_what_the_model_uses) {
  const UserModel user_model = user_with(3);
  const Architecture architecture = test::tiny_architecture();
  const Parameters parameters = test::random_parameters(architecture, user_model, 6);
  const std::vector<ParameterView> stored =
      stored_parameters(architecture, user_model, parameters.values().data_ptr<float>());
  BOOST_TEST(stored.size() == 2u * (4u + 3u * 4u + 1u));  // layers x (attention, experts, router)
  for (const ParameterView& view : stored) {
    const LayerParameters layer = lora_layers(parameters)[static_cast<std::size_t>(view.layer)];
    const auto factor = [&](const Lora& lora) { return view.name.ends_with("_A") ? lora.A : lora.B; };
    const at::Tensor tensor =
        view.role == "router"         ? layer.router
        : view.role == "attention"    ? factor(layer.attention[view.name.starts_with("attn.c_attn") ? 0 : 1])
        : view.name.starts_with("up") ? factor(layer.experts[static_cast<std::size_t>(view.expert)].up[0])
                                      : factor(layer.experts[static_cast<std::size_t>(view.expert)].down);
    BOOST_TEST((view.data == tensor.data_ptr<float>()), view.role << " " << view.name);
    BOOST_TEST(view.rows == tensor.size(0));
    BOOST_TEST(view.columns == tensor.size(1));
    BOOST_TEST((view.expert == -1) == (view.role != "expert"));
  }
}

BOOST_AUTO_TEST_CASE(a_factor_that_is_not_trained_is_neither_tracked_nor_stepped) {
  UserModel user_model = user_with(2, Gate::equal);
  user_model.trained = Factors::B;
  Parameters parameters = make(user_model);
  parameters.track(true, true);
  std::int64_t count = 0;
  for (const Lora& lora : parameters.loras()) {
    BOOST_TEST(!lora.A.requires_grad());
    BOOST_TEST(lora.B.requires_grad());
    count += lora.B.numel();
  }
  for (const Slice& slice : parameters.layout().trained()) count -= slice.count;
  BOOST_TEST(count == 0);
  BOOST_TEST(parameters.layout().trained()[1].offset ==
             parameters.layout().slice(select::expert(0, Factors::B)).offset);
  BOOST_TEST(make(user_with(2)).layout().trained().size() == 1u);
}

BOOST_AUTO_TEST_CASE(the_layout_has_the_loras_in_the_parameters_order) {
  const Parameters parameters = make(user_with(3));
  const std::vector<Lora> loras = parameters.loras();
  const std::vector<Widths> found = parameters.layout().loras();
  BOOST_TEST_REQUIRE(found.size() == loras.size());
  for (std::size_t l = 0; l < loras.size(); ++l) {
    BOOST_TEST(found[l].in == widths(loras[l]).in, "LoRA " << l);
    BOOST_TEST(found[l].out == widths(loras[l]).out, "LoRA " << l);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
