// The router's gate and the load-balancing loss, in closed form.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <optional>
#include <vector>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/adapter/losses.hpp"
#include "support/tensors.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

using test::close;

// A router whose logits are its input's first elements.
at::Tensor reading_router(std::int64_t experts, std::int64_t width) {
  return at::eye(experts, width).set_requires_grad(true);
}

UserModel user_with(std::int64_t experts, std::int64_t top_k, Gate gate = Gate::top_k) {
  return {.experts = experts, .top_k = top_k, .gate = gate};
}

// As the norm in front of the MLP block leaves them.
model::Normed read_by(const at::Tensor& router, const at::Tensor& x) {
  return {.x = x, .read = at::linear(x.to(at::kFloat), router)};
}

// The routing that logits [n, E] lead to.
LayerRouting routing_of(const at::Tensor& logits, std::int64_t k) {
  const std::int64_t experts = logits.size(1);
  return route(read_by(reading_router(experts, experts), logits), user_with(experts, k));
}

// Eq. 6 for a generalist that is to have half of the tokens, in its own words; else in inverse proportion to
// the shares.
double weight(std::int64_t j, std::int64_t experts, std::optional<double> importance) {
  const double others = static_cast<double>(experts) - 1;
  if (!importance) return 1.0 / static_cast<double>(experts);
  if (*importance == 0.5) return (j == 0 ? 1.0 : others) / (others * others + 1);
  const double first = 1 / *importance, other = others / (1 - *importance);
  return (j == 0 ? first : other) / (first + others * other);
}

at::Tensor loss_of(const std::vector<LayerRouting>& routing, std::optional<double> importance) {
  const std::int64_t experts = routing.empty() ? 1 : routing.front().load.size(0);
  return load_balancing_loss(routing, balancing_weights(experts, importance));
}

// Eq. 7 with loops over tokens and experts, of logits [n, E] of each layer and what they chose.
double by_hand(const std::vector<at::Tensor>& logits, const std::vector<LayerRouting>& routing,
               std::optional<double> importance) {
  double sum = 0.0;
  for (std::size_t layer = 0; layer < logits.size(); ++layer) {
    const std::int64_t n = logits[layer].size(0), experts = logits[layer].size(1);
    const at::Tensor probabilities = logits[layer].detach().to(at::kDouble).softmax(-1);
    for (std::int64_t j = 0; j < experts; ++j) {
      double chosen = 0.0, probability = 0.0;
      for (std::int64_t i = 0; i < n; ++i) {
        chosen += routing[layer].chosen[i][j].item<bool>() ? 1.0 : 0.0;
        probability += probabilities[i][j].item<double>();
      }
      sum += weight(j, experts, importance) * chosen / static_cast<double>(n) * probability /
             static_cast<double>(n);
    }
  }
  return sum / static_cast<double>(logits.size());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(routing)

BOOST_AUTO_TEST_CASE(the_k_largest_share_the_gate) {
  const at::Tensor x =
      at::tensor({1.0f, 3.0f, 2.0f, -1.0f, 9.0f, 0.5f, 0.1f, 0.2f, 0.4f, -7.0f}, at::kFloat).view({2, 5});
  const LayerRouting routed = route(read_by(reading_router(4, 5), x), user_with(4, 2));
  // Logits 1 3 2 -1 and 0.5 0.1 0.2 0.4: a softmax over two is the logistic function of their difference.
  const double first = 1.0 / (1.0 + std::exp(-1.0)), second = 1.0 / (1.0 + std::exp(-0.1));
  const at::Tensor expected = at::zeros({2, 4}, at::kDouble);
  expected[0][1] = first;
  expected[0][2] = 1.0 - first;
  expected[1][0] = second;
  expected[1][3] = 1.0 - second;
  BOOST_TEST(close(routed.gate, expected, 1e-6));
  BOOST_TEST(routed.chosen.equal(expected.gt(0)));
  BOOST_TEST(close(routed.load, at::tensor({0.5, 0.5, 0.5, 0.5}), 1e-7));
  BOOST_TEST(close(routed.probability, x.narrow(1, 0, 4).to(at::kDouble).softmax(-1).mean(0), 1e-6));
}

BOOST_AUTO_TEST_CASE(one_of_several_is_weighted_with_its_probability) {
  const at::Tensor logits = test::normal({50, 3}, 14).set_requires_grad(true);
  const LayerRouting routed = routing_of(logits, 1);
  const at::Tensor probabilities = test::copy_of(logits).to(at::kDouble).softmax(-1);
  const at::Tensor largest = std::get<0>(probabilities.max(-1, true));
  BOOST_TEST(close(routed.gate, probabilities * probabilities.eq(largest), 1e-6));
  BOOST_TEST(close(routed.distribution, probabilities, 1e-6));
  // Its gradient reaches all logits, as that of the definition does.
  const at::Tensor weights = test::normal({50, 3}, 15), again = test::copy_of(logits).set_requires_grad(true);
  (routed.gate * weights).sum().backward();
  (again.softmax(-1) * routed.chosen * weights).sum().backward();
  BOOST_TEST(close(logits.grad(), again.grad(), 1e-6));
  BOOST_TEST(logits.grad().abs().gt(0).all().item<bool>());
}

BOOST_AUTO_TEST_CASE(gates_sum_to_one_and_k_are_open) {
  const at::Tensor x = test::normal({200, 8}, 1);
  for (const std::int64_t k : {1, 2, 3, 5, 9}) {
    const LayerRouting routed = route(read_by(reading_router(5, 8), x), user_with(5, k));
    BOOST_TEST(close(routed.distribution.sum(-1), at::ones({200}), 1e-6));
    if (k > 1) BOOST_TEST(close(routed.gate.sum(-1), at::ones({200}), 1e-6));
    BOOST_TEST(routed.gate.gt(0).sum(-1).eq(std::min<std::int64_t>(k, 5)).all().item<bool>());
    BOOST_TEST(routed.chosen.equal(routed.gate.gt(0)));
    BOOST_TEST(close(routed.load, routed.chosen.to(at::kDouble).mean(0), 1e-6));
    // What is chosen is never smaller than what is left out.
    const at::Tensor logits = x.narrow(1, 0, 5);
    const at::Tensor least = logits.masked_fill(routed.chosen.logical_not(), 1e9).amin(-1);
    const at::Tensor most = logits.masked_fill(routed.chosen, -1e9).amax(-1);
    BOOST_TEST(least.ge(most).all().item<bool>());
  }
}

BOOST_AUTO_TEST_CASE(all_experts_active_is_the_full_softmax) {
  const at::Tensor logits = test::normal({50, 3}, 2);
  const LayerRouting routed = routing_of(logits, 3);
  BOOST_TEST(close(routed.gate, logits.to(at::kDouble).softmax(-1), 1e-6));
  BOOST_TEST(close(routed.probability, routed.gate.mean(0), 1e-6));
}

BOOST_AUTO_TEST_CASE(ties_open_k_gates_of_equal_size) {
  const LayerRouting routed = route(read_by(reading_router(4, 8), at::zeros({7, 8})), user_with(4, 2));
  BOOST_TEST(routed.chosen.equal(at::tensor({1, 1, 0, 0}).to(at::kBool).expand({7, 4})));
  BOOST_TEST(close(routed.gate, routed.chosen.to(at::kFloat) * 0.5, 1e-7));
}

BOOST_AUTO_TEST_CASE(equal_gate_and_single_expert_are_not_routed) {
  const at::Tensor x = test::normal({6, 8}, 3);
  const LayerRouting equal = route({.x = x, .read = {}}, user_with(4, 2, Gate::equal));
  BOOST_TEST(test::same_bits(equal.gate, at::full({6, 4}, 0.25f)));
  BOOST_TEST(!equal.probability.defined());
  BOOST_TEST(!equal.chosen.defined());
  BOOST_TEST(test::same_bits(route({.x = x, .read = {}}, user_with(1, 2)).gate, at::ones({6, 1})));
}

BOOST_AUTO_TEST_CASE(gate_is_float32_and_differentiable_in_chosen_logits_alone) {
  const at::Tensor router = reading_router(3, 4);
  const LayerRouting routed =
      route(read_by(router, test::normal({1, 4}, 4).to(at::kBFloat16)), user_with(3, 2));
  BOOST_TEST((routed.gate.scalar_type() == at::kFloat));
  (routed.gate * at::tensor({1.0f, 2.0f, 3.0f})).sum().backward();
  for (std::int64_t e = 0; e < 3; ++e) {
    const bool moved = router.grad()[e].abs().max().item<float>() > 0.0f;
    BOOST_TEST(moved == routed.chosen[0][e].item<bool>());
  }
}

BOOST_AUTO_TEST_CASE(lora_linear_adds_the_low_rank_term) {
  const at::Tensor x = test::normal({5, 6}, 5);
  const Weight weight{.matrix = test::normal({6, 7}, 6), .bias = test::normal({7}, 7)};
  const Lora lora{.A = test::normal({2, 6}, 8), .B = test::normal({7, 2}, 9)};
  const at::Tensor plain = x.mm(weight.matrix) + weight.bias;
  BOOST_TEST(close(Hooks().project(0, 0, x, weight), plain, 1e-6));
  BOOST_TEST(close(lora_linear(x, weight, lora), plain + x.mm(lora.B.mm(lora.A).t()), 1e-5));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(load_balancing)

BOOST_AUTO_TEST_CASE(weights_sum_to_one_and_agree_at_two) {
  // One token, all experts chosen with equal probability 1/E: the loss is the sum of the weights over E.
  for (const std::int64_t experts : {2, 3, 5})
    for (const std::optional<double> importance : {std::optional<double>(), {0.5}, {0.9}})
      BOOST_TEST(loss_of({routing_of(at::zeros({1, experts}), experts)}, importance).item<double>() ==
                     1.0 / static_cast<double>(experts),
                 boost::test_tools::tolerance(1e-6));
  BOOST_TEST(balancing_weights(2, 0.5).first == balancing_weights(2, {}).first);
}

BOOST_AUTO_TEST_CASE(against_loops) {
  for (const std::int64_t experts : {2, 3, 4}) {
    for (const std::int64_t k : {1, 2}) {
      const std::vector<at::Tensor> logits = {test::normal({20, experts}, 10, 2.0),
                                              test::normal({20, experts}, 11, 2.0)};
      const std::vector<LayerRouting> routing = {routing_of(logits[0], k), routing_of(logits[1], k)};
      for (const std::optional<double> importance : {std::optional<double>(), {0.5}, {0.2}})
        BOOST_TEST(loss_of(routing, importance).item<double>() == by_hand(logits, routing, importance),
                   boost::test_tools::tolerance(1e-5));
    }
  }
}

// The authors' program: the mean over experts of f_j / k (the mean of the chosen experts' one-hot vectors)
// times P_j times 1 / (p_0 E) or (E - 1) / ((1 - p_0) E), times E^2.
BOOST_AUTO_TEST_CASE(published_strength) {
  for (const std::int64_t experts : {2, 4})
    for (const double importance : {0.5, 0.9}) {
      const at::Tensor logits = test::normal({20, experts}, 14, 2.0);
      const LayerRouting routing = routing_of(logits, 2);
      const at::Tensor density = routing.chosen.to(at::kDouble).mean(0) / 2,
                       proxy = logits.to(at::kDouble).softmax(-1).mean(0);
      const auto E = static_cast<double>(experts);
      at::Tensor factors = at::full({experts}, (E - 1) / (1 - importance) / E, at::kDouble);
      factors[0] = 1 / importance / E;
      BOOST_TEST(load_balancing_loss({routing}, published_balancing_weights(experts, importance, 2))
                         .item<double>() == (density * proxy * factors).mean().item<double>() * E * E,
                 boost::test_tools::tolerance(1e-5));
    }
  // At Eq. 6's importance 2 times the paper's with two experts, 10 times with four; 8 times where all are
  // alike.
  BOOST_TEST(published_balancing_weights(2, 0.5, 2).first == 2 * balancing_weights(2, 0.5).first);
  BOOST_TEST(published_balancing_weights(4, 0.5, 2).other == 10 * balancing_weights(4, 0.5).other);
  BOOST_TEST(published_balancing_weights(4, {}, 2).first == 8 * balancing_weights(4, {}).first);
}

BOOST_AUTO_TEST_CASE(generalist_weights_of_three) {
  // All tokens choose one expert with certainty: the loss is its weight, 1/5 for the generalist and 2/5 for
  // the others.
  for (const std::int64_t chosen : {0, 1, 2}) {
    at::Tensor logits = at::zeros({4, 3});
    logits.select(1, chosen).fill_(60.0);
    const double loss = loss_of({routing_of(logits, 1)}, 0.5).item<double>();
    BOOST_TEST(loss == (chosen == 0 ? 0.2 : 0.4), boost::test_tools::tolerance(1e-6));
  }
}

BOOST_AUTO_TEST_CASE(top_2_of_2_is_constant) {
  const at::Tensor logits = test::normal({30, 2}, 12, 3.0).set_requires_grad(true);
  const at::Tensor loss = loss_of({routing_of(logits, 2)}, 0.5);
  BOOST_TEST(loss.item<double>() == 0.5, boost::test_tools::tolerance(1e-6));
  loss.backward();
  BOOST_TEST(logits.grad().abs().max().item<double>() < 1e-8);
}

BOOST_AUTO_TEST_CASE(gradient_by_finite_differences) {
  const at::Tensor logits = test::normal({6, 3}, 13).set_requires_grad(true);
  const LayerRouting routed = routing_of(logits, 1);
  loss_of({routed}, 0.5).backward();
  constexpr double step = 1e-3;
  for (std::int64_t i = 0; i < 18; ++i) {
    const auto loss_at = [&](double shift) {
      at::Tensor moved = test::copy_of(logits).to(at::kDouble);
      moved.view(-1)[i] += shift;
      return by_hand({moved}, {routed}, 0.5);  // the choice is held: it has no derivative
    };
    const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
    BOOST_TEST(std::abs(logits.grad().view(-1)[i].item<double>() - slope) < 1e-6);
  }
}

BOOST_AUTO_TEST_CASE(nothing_routed_has_no_loss) { BOOST_TEST(!loss_of({}, 0.5).defined()); }

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
