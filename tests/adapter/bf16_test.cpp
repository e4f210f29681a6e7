// Activations in bfloat16, as GPUs and CPUs with instructions for them have them, against float32 ones beside
// the same frozen weights: losses, and each part of the gradient in direction and in length.
#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/losses.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/card.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

constexpr std::int64_t B = 15,
                       T = 17;  // 1/255 in bfloat16 is 0.39 % too large: a mean that is rounded so shows

struct Pass {
  double loss;
  at::Tensor gradients, chosen;  // chosen [L, n, E], where tokens are routed
};

Pass pass(const UserModel& user, std::uint32_t draw, at::ScalarType activations, const at::Device& device) {
  const Architecture architecture = test::tiny_architecture();
  const test::Weights weights = test::random_weights(architecture);
  const auto base = make_base_model(
      architecture,
      [&](const WeightSpec& spec) { return weights.at(spec.name).to(at::kBFloat16).to(device); },
      activations);
  Parameters parameters(architecture, user, device);
  at::Tensor values = parameters.values();
  values.copy_(test::random_parameters(architecture, user, draw, 0.1).values());
  const at::Tensor numbers = at::arange(B * T, at::kLong).add(draw);
  const Forward forward =
      adapter::forward(*base, numbers.mul(11).remainder(37).view({B, T}).to(device), parameters);
  BOOST_TEST((forward.hidden.scalar_type() == activations));
  at::Tensor loss =
      cross_entropy(forward.hidden, base->head(), numbers.mul(7).remainder(37).to(device).contiguous());
  const double of_text = loss.item<double>();
  std::vector<at::Tensor> chosen;
  for (const LayerRouting& layer : forward.routing) chosen.push_back(layer.chosen.to(at::kCPU));
  if (user.routed()) loss = loss + load_balancing_loss(forward.routing, balancing_weights(user.experts, 0.5));
  loss.backward();
  return {of_text, parameters.gradients().to(at::kCPU), chosen.empty() ? at::Tensor() : at::stack(chosen)};
}

// Rounding sends a token to another expert now and then, which is no error: those draws are passed over.
bool same_choice(const Pass& a, const Pass& b) { return !a.chosen.defined() || a.chosen.equal(b.chosen); }

std::vector<Slice> parts_of(const UserModel& user) {
  const Parameters parameters(test::tiny_architecture(), user, at::kCPU);
  std::vector<Slice> parts = {parameters.layout().slice(select::attention()),
                              parameters.layout().slice(select::experts())};
  if (parameters.layout().slice(select::routers()).count > 0)
    parts.push_back(parameters.layout().slice(select::routers()));
  return parts;
}

// `allowed`: how far from one the lengths may be, in the mean over draws.
void compare(const UserModel& user, const at::Device& device, double allowed = 3e-3) {
  constexpr int wanted = 32;
  const std::vector<Slice> parts = parts_of(user);
  std::vector<double> times(parts.size(), 0.0);
  int compared = 0;
  for (std::uint32_t draw = 1; draw <= 480 && compared < wanted; ++draw) {
    const Pass exact = pass(user, draw, at::kFloat, at::kCPU),
               found = pass(user, draw, at::kBFloat16, device);
    if (!same_choice(exact, found)) continue;
    ++compared;
    BOOST_TEST(std::abs(found.loss - exact.loss) < 5e-3 * exact.loss);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const at::Tensor a = view(found.gradients, parts[i]), b = view(exact.gradients, parts[i]);
      BOOST_TEST(test::relative_error(a, b) < 4e-2, "part " << i);
      times[i] += test::times(a, b) / wanted;
    }
  }
  BOOST_TEST_REQUIRE(compared == wanted);
  for (std::size_t i = 0; i < parts.size(); ++i)
    BOOST_TEST(std::abs(times[i] - 1) < allowed, "part " << i << " is " << times[i] << " times as long");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(activations_in_bf16)

BOOST_DATA_TEST_CASE(of_one_expert, test::devices(), device) {
  compare({.experts = 1, .lora_rank = 4}, device);
}

BOOST_DATA_TEST_CASE(of_two_experts_top_2, test::devices(), device) {
  compare({.experts = 2, .lora_rank = 4, .top_k = 2}, device);
}

BOOST_DATA_TEST_CASE(of_two_experts_top_1, test::devices(), device) {
  // The chosen expert's gate is rounded once more: half of that is left after the draws.
  compare({.experts = 2, .lora_rank = 4, .top_k = 1}, device, 6e-3);
}

BOOST_DATA_TEST_CASE(of_four_experts_top_2, test::devices(), device) {
  compare({.experts = 4, .lora_rank = 4, .top_k = 2}, device);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
