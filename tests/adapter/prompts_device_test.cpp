// Mixtures of prompts: every device there is makes the losses and gradients that the host makes in float32.
// Who needs a card is in device_test.cpp.
#include <ATen/ATen.h>

#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/kind.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/card.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

namespace {

namespace sets = boost::unit_test::data;

struct Step {
  at::Tensor loss, gradients;
};

const std::vector<model::Architecture> families = {test::tiny_architecture(),
                                                   test::tiny_llama_architecture()};

UserModel user_with(std::int64_t groups, Gate gate, std::int64_t layer) {
  return {.experts = groups,
          .generalists = {},
          .prompt_tokens = 3,
          .prompt_layer = layer,
          .gate_width = 5,
          .top_k = groups,
          .gate = gate,
          .kind = &kinds::prompts};
}

// What a step computes of four texts with instructions of unlike lengths: its own loss, or the warm-up's.
Step step(const model::Architecture& architecture, const UserModel& user_model, bool warmup,
          const at::Device& device) {
  const test::Weights weights = test::random_weights(architecture);
  const auto base = model::make_base_model(
      architecture, [&](const model::WeightSpec& spec) { return weights.at(spec.name).to(device); });
  Parameters parameters(architecture, user_model, device);
  parameters.values().copy_(test::random_parameters(architecture, user_model, 3, 0.3).values());
  const at::Tensor tokens = at::arange(40, at::kLong).mul(11).remainder(37).view({4, 10}).to(device),
                   instruction = at::tensor({3, 1, 7, 10}, at::kLong).to(device);
  at::Tensor loss;
  if (warmup) {
    const at::Tensor category = at::tensor({0, 1, 2, 1}, at::kLong).to(device);
    loss = at::cross_entropy_loss(sequence_gate_logits(*base, tokens, parameters, instruction), category);
  } else {
    const Forward forward = adapter::forward(*base, tokens, parameters, instruction);
    loss = model::cross_entropy(forward.hidden, base->head(), tokens.roll(-1, 1).view(-1));
  }
  loss.backward();
  return {loss.detach().to(at::kCPU), parameters.gradients().to(at::kCPU)};
}

void check(const model::Architecture& architecture, const UserModel& user_model, bool warmup,
           const at::Device& device) {
  const Step host = step(architecture, user_model, warmup, at::kCPU),
             there = step(architecture, user_model, warmup, device);
  BOOST_TEST(host.gradients.abs().max().item<float>() > 1e-3f);
  BOOST_TEST(test::close(there.loss, host.loss, 1e-5));
  BOOST_TEST(test::close(there.gradients, host.gradients, 1e-3));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(prompts_on_every_device)

BOOST_DATA_TEST_CASE(groups_in_front_of_attention, test::devices() * sets::make({0, 1}), device, layer) {
  for (const model::Architecture& architecture : families) BOOST_TEST_CONTEXT(architecture.family)
  for (const auto& [groups, gate] : {std::pair(1, Gate::equal), std::pair(3, Gate::equal),
                                     std::pair(2, Gate::sequence), std::pair(3, Gate::sequence)})
    check(architecture, user_with(groups, gate, layer), false, device);
}

BOOST_DATA_TEST_CASE(the_gate_s_warm_up, test::devices() * sets::make({0, 1}), device, layer) {
  for (const model::Architecture& architecture : families) BOOST_TEST_CONTEXT(architecture.family)
  check(architecture, user_with(3, Gate::sequence, layer), true, device);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
