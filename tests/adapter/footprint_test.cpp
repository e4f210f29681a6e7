// The reckoned memory of a step against what the process is seen to take.
#include "comigs/adapter/footprint.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <fstream>
#include <string>

#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

// An entry of /proc/self/status, in bytes.
std::int64_t status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name + ":")) return std::stol(line.substr(name.size() + 1)) * 1024;
  return 0;
}

// From here on the peak is counted anew.
void forget_peak() { std::ofstream("/proc/self/clear_refs") << 5; }

}  // namespace

BOOST_AUTO_TEST_SUITE(footprints)

BOOST_AUTO_TEST_CASE(parts_are_counted) {
  const Architecture architecture = gpt2_architecture(2, 16, 2, 1000, 64);
  const UserModel user_model{.experts = 2, .lora_rank = 4};
  const Footprint one = footprint(architecture, user_model, {}, 10);
  // Embeddings, by layer two norms, attention 4 C^2 + 4 C, MLP 8 C^2 + 5 C; a last norm.
  const std::int64_t C = 16, weights = 1000 * C + 64 * C +
                                       2 * (4 * C + 4 * C * C + 4 * C + 8 * C * C + 5 * C) + 2 * C;
  BOOST_TEST(one.base == 4 * weights);
  BOOST_TEST(footprint(architecture, user_model, {at::kBFloat16, at::kBFloat16}, 10).base == 2 * weights);
  // LoRA of rank 4 on qkv, projection, and for each expert up and down; a router.
  const std::int64_t trained = 2 * (4 * (C + 3 * C) + 4 * (C + C) + 2 * (2 * 4 * (C + 4 * C)) + 2 * C);
  BOOST_TEST(one.parameters == 16 * trained);
  BOOST_TEST(Layout(architecture, user_model).size() == trained);
  BOOST_TEST(footprint(architecture, user_model, {}, 20).activations > one.activations);
  // On a GPU recorded steps keep their memory, and an evaluation has its own.
  const Footprint on_gpu = footprint(architecture, user_model, {.on_gpu = true}, 10);
  BOOST_TEST(on_gpu.total() - one.total() == evaluation_activations(architecture, user_model, {}, 10));
  BOOST_TEST(one.total() == one.base + one.parameters + one.activations);
}

BOOST_AUTO_TEST_CASE(activations_are_what_a_step_takes) {
  const Architecture architecture = gpt2_architecture(4, 128, 4, 2000, 64);
  const test::Weights weights = test::random_weights(architecture);
  const auto base =
      make_base_model(architecture, [&](const WeightSpec& spec) { return weights.at(spec.name); });
  const UserModel user_model{.experts = 2, .lora_rank = 4};
  const Parameters parameters = test::random_parameters(architecture, user_model, 1);
  const auto step = [&](std::int64_t sequences) {
    const at::Tensor tokens = at::arange(sequences * 64, at::kLong).remainder(2000).view({sequences, 64});
    cross_entropy(forward(*base, tokens, parameters).hidden, base->head(), tokens.view(-1)).backward();
  };
  step(1);  // what is made once
  const std::int64_t before = status("VmRSS");
  forget_peak();
  step(64);
  const auto seen = static_cast<double>(status("VmHWM") - before);
  const auto reckoned = static_cast<double>(footprint(architecture, user_model, {}, 64 * 64).activations);
  BOOST_TEST(seen <= 1.1 * reckoned);
  BOOST_TEST(seen >= 0.7 * reckoned);
}

BOOST_AUTO_TEST_CASE(a_head_of_its_own_is_counted) {
  Architecture architecture = gpt2_architecture(2, 16, 2, 37, 24);
  const UserModel user_model{.experts = 2, .lora_rank = 4};
  const std::int64_t tied = footprint(architecture, user_model, {}, 10).base;
  architecture.tied_head = false;
  BOOST_TEST(footprint(architecture, user_model, {}, 10).base - tied == 37 * 16 * 4);
}

BOOST_AUTO_TEST_CASE(an_evaluation_takes_less_than_a_step) {
  const Architecture architecture = gpt2_architecture(4, 128, 4, 2000, 64);
  const UserModel user_model{.experts = 4, .lora_rank = 4};
  const auto evaluation = [&](std::int64_t tokens) {
    return evaluation_activations(architecture, user_model, {}, tokens);
  };
  // What comes in, its norm and what goes out, and twice the inner activations.
  BOOST_TEST(evaluation(4096) >= 4096 * (3 * 128 + 2 * 512) * 4);
  for (const std::int64_t tokens : {64, 1024, 4096})
    BOOST_TEST(evaluation(tokens) < footprint(architecture, user_model, {}, tokens).activations);
  // A head in bfloat16 is widened as a whole.
  const Computation widened{at::kBFloat16, at::kFloat};
  BOOST_TEST(evaluation_activations(architecture, user_model, widened, 1) >= 2000 * 128 * 4);
}

BOOST_AUTO_TEST_CASE(factors_stand_side_by_side_for_the_backward_pass) {
  const Architecture architecture = gpt2_architecture(2, 16, 2, 100, 64);
  // Two more experts: rank 64 on up (16, 64) and down (64, 16), in two layers, and their gradients. What
  // stands on the inner width is float32 in any case.
  for (const auto& [type, size] : {std::pair{at::kFloat, 4}, {at::kBFloat16, 2}}) {
    const Computation computation{type, type};
    const auto activations = [&](std::int64_t experts) {
      return footprint(architecture, {.experts = experts, .lora_rank = 64}, computation, 1).activations;
    };
    BOOST_TEST(activations(4) - activations(2) >= 2 * 2 * 2 * 64 * ((16 + 16) * size + (64 + 64) * 4));
  }
}

// As large as a GPU's many processors want them, and as many as the host gets through.
BOOST_AUTO_TEST_CASE(logits_of_a_chunk) {
  const Architecture architecture = gpt2_architecture(2, 16, 2, 50257, 2048);
  const auto evaluation = [&](bool on_gpu) {
    return evaluation_activations(architecture, {.experts = 2, .lora_rank = 4}, {.on_gpu = on_gpu}, 2048);
  };
  BOOST_TEST(evaluation(true) >= std::int64_t{2048} * 50304 * 4);
  BOOST_TEST(evaluation(false) < std::int64_t{1024} * 50304 * 4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
