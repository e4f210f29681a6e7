// What must hold of groups of soft prompts and of their gate, whatever the network: who reads what, that
// groups have no order, and that a gate is neither more nor less than a weight on attention.
#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <cmath>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/kind.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

namespace {

using test::close;
using test::same_bits;

constexpr std::int64_t B = 4, T = 11, E = 3, m = 2, layer = 1;

UserModel user_with(std::int64_t experts, Gate gate = Gate::sequence, std::int64_t at_layer = layer) {
  return {.experts = experts,
          .generalists = {},
          .prompt_tokens = m,
          .prompt_layer = at_layer,
          .gate_width = 5,
          .top_k = experts,
          .gate = gate,
          .kind = &kinds::prompts};
}

at::Tensor group(const Parameters& parameters, std::int64_t expert) {
  return parameters.leaves()[static_cast<std::size_t>(expert)].detach();
}

// Of the gate's four.
at::Tensor gate_part(const Parameters& parameters, std::size_t part) {
  return parameters.leaves()[parameters.leaves().size() - 4 + part].detach();
}

struct Prompted {
  std::unique_ptr<model::BaseModel> base = test::tiny_base();
  UserModel user_model = user_with(E);
  Parameters parameters = test::random_parameters(test::tiny_architecture(), user_model, 5, 0.5);
  at::Tensor tokens = at::arange(B * T, at::kLong).mul(11).remainder(37).view({B, T});
  at::Tensor instruction = at::tensor({3, 1, 7, 11}, at::kLong);

  [[nodiscard]] at::Tensor hidden(const Parameters& some) const {
    return forward(*base, tokens, some, instruction).hidden;
  }
  [[nodiscard]] at::Tensor gate(const at::Tensor& of) const {
    return forward(*base, of, parameters, instruction).routing[layer].gate;
  }
};

// Attention with a bias written into its mask, as float32 has it, in place of what the keys carry.
class MaskedAttention : public model::Hooks {
 public:
  MaskedAttention(const Parameters& parameters, const model::BaseModel& base, at::Tensor log_gate)
      : parameters_(parameters),
        base_(base),
        bias_(log_gate + std::log(static_cast<double>(log_gate.size(1)))) {}

  [[nodiscard]] std::int64_t shift(std::size_t in) const override { return in >= layer ? m : 0; }

  [[nodiscard]] at::Tensor attend(std::size_t in, const model::Heads& text) override {
    if (in < layer) return Hooks::attend(in, text);
    std::vector<at::Tensor> keys, values;
    for (std::int64_t e = 0; e < E; ++e) {
      const model::Sequences alone{.count = 1, .length = m};
      model::Hooks bare;
      const at::Tensor x = group(parameters_, e).to(text.queries.scalar_type());
      const model::Heads heads = base_.split(in, model::norm(base_.norm_1(in), x), alone, bare);
      keys.push_back(heads.keys.expand({text.keys.size(0), -1, -1, -1}));
      values.push_back(heads.values.expand({text.keys.size(0), -1, -1, -1}));
    }
    keys.push_back(text.keys);
    values.push_back(text.values);
    const std::int64_t P = E * m, length = text.queries.size(2);
    at::Tensor mask = at::zeros({text.keys.size(0), 1, length, P + length});
    mask.narrow(3, 0, P).copy_(bias_.repeat_interleave(m, 1).view({-1, 1, 1, P}).expand({-1, 1, length, P}));
    mask.narrow(3, P, length)
        .masked_fill_(at::ones({length, length}, at::kBool).triu(1),
                      -std::numeric_limits<double>::infinity());
    const at::Tensor joined_keys = at::cat(keys, 2).to(at::kFloat),
                     joined_values = at::cat(values, 2).to(at::kFloat);
    return at::scaled_dot_product_attention(text.queries.to(at::kFloat), joined_keys, joined_values, mask)
        .to(text.queries.scalar_type());
  }

 private:
  const Parameters& parameters_;
  const model::BaseModel& base_;
  at::Tensor bias_;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(mixture_of_prompts, Prompted)

// mop.md check 6.
BOOST_AUTO_TEST_CASE(a_gate_that_is_sure_leaves_its_group_alone) {
  for (std::int64_t sure = 0; sure < E; ++sure) {
    gate_part(parameters, 2).zero_();
    gate_part(parameters, 3).zero_().select(1, sure).fill_(40.0);
    // A group of weight 1 has the attention that E such groups without a gate have together.
    Parameters three = test::random_parameters(test::tiny_architecture(), user_with(E, Gate::equal), 6);
    for (std::int64_t e = 0; e < E; ++e) group(three, e).copy_(group(parameters, sure));
    BOOST_TEST(close(hidden(parameters), hidden(three), 1e-5));
  }
}

// mop.md check 7.
BOOST_AUTO_TEST_CASE(groups_have_no_order) {
  Parameters other = test::random_parameters(test::tiny_architecture(), user_model, 5, 0.5);
  const std::vector<std::int64_t> order = {2, 0, 1};
  for (std::int64_t e = 0; e < E; ++e) {
    const std::int64_t from = order[static_cast<std::size_t>(e)];
    group(other, e).copy_(group(parameters, from));
    gate_part(other, 2)[e].copy_(gate_part(parameters, 2)[from]);
    gate_part(other, 3)[0][e].copy_(gate_part(parameters, 3)[0][from]);
  }
  BOOST_TEST(close(hidden(other), hidden(parameters), 1e-6));
}

// mop.md check 8.
BOOST_AUTO_TEST_CASE(the_gate_reads_nothing_but_the_instruction) {
  at::Tensor changed = tokens.clone();
  for (std::int64_t b = 0; b < B; ++b)
    changed[b].slice(0, instruction[b].item<std::int64_t>()).add_(5).remainder_(37);
  BOOST_TEST(same_bits(gate(changed), gate(tokens)));
  changed = tokens.clone();
  changed[0][2] = (changed[0][2] + 1) % 37;
  BOOST_TEST(!same_bits(gate(changed)[0], gate(tokens)[0]));
  BOOST_TEST(same_bits(gate(changed)[1], gate(tokens)[1]));
}

// mop.md check 9: padding, which follows what is predicted.
BOOST_AUTO_TEST_CASE(padding_changes_no_loss) {
  at::Tensor targets = tokens.roll(-1, 1).clone(), padded = tokens.clone();
  targets.slice(1, T - 3).fill_(-1);
  padded.slice(1, T - 3).fill_(0);
  const at::Tensor lengths = instruction.clamp_max(T - 4);
  const auto loss = [&](const at::Tensor& of) {
    return model::cross_entropy(forward(*base, of, parameters, lengths).hidden, base->head(),
                                targets.view(-1));
  };
  BOOST_TEST(same_bits(loss(padded), loss(tokens)));
}

BOOST_AUTO_TEST_CASE(a_uniform_gate_is_none) {
  gate_part(parameters, 2).zero_();
  gate_part(parameters, 3).zero_();
  Parameters equal = test::random_parameters(test::tiny_architecture(), user_with(E, Gate::equal), 6);
  for (std::int64_t e = 0; e < E; ++e) group(equal, e).copy_(group(parameters, e));
  BOOST_TEST(close(hidden(parameters), hidden(equal), 1e-6));
  BOOST_TEST(close(gate(tokens), at::full({B, E}, 1.0 / E), 1e-7));
}

BOOST_AUTO_TEST_CASE(all_of_a_text_is_instruction_unless_told) {
  const at::Tensor whole = at::full({B}, T, at::kLong);
  BOOST_TEST(close(forward(*base, tokens, parameters).hidden,
                   forward(*base, tokens, parameters, whole).hidden, 1e-6));
}

BOOST_AUTO_TEST_CASE(the_warm_up_s_logits_are_those_of_the_gate) {
  for (const std::int64_t at_layer : {0, 1}) {
    const Parameters own =
        test::random_parameters(test::tiny_architecture(), user_with(E, Gate::sequence, at_layer), 5, 0.5);
    const at::Tensor logits = sequence_gate_logits(*base, tokens, own, instruction);
    const std::vector<LayerRouting> routing = forward(*base, tokens, own, instruction).routing;
    BOOST_TEST(close(logits, routing[static_cast<std::size_t>(at_layer)].logits, 1e-6));
    logits.sum().backward();
    for (std::int64_t e = 0; e < E; ++e)
      BOOST_TEST(own.leaves()[static_cast<std::size_t>(e)].grad().abs().max().item<float>() == 0.0f);
  }
}

// mop.md check 10.
BOOST_DATA_TEST_CASE(keys_carry_the_gate_as_a_mask_would,
                     boost::unit_test::data::make({at::kFloat, at::kBFloat16}), type) {
  const model::Architecture architecture = test::tiny_architecture();
  const test::Weights weights = test::random_weights(architecture);
  const auto network = model::make_base_model(
      architecture, [&](const model::WeightSpec& spec) { return weights.at(spec.name).to(type); }, type);
  const at::Tensor log_gate =
      sequence_gate_logits(*network, tokens, parameters, instruction).detach().log_softmax(-1);
  MaskedAttention masked(parameters, *network, log_gate);
  const at::Tensor expected = model::forward(*network, tokens, masked),
                   found = forward(*network, tokens, parameters, instruction).hidden;
  BOOST_TEST(close(found, expected, type == at::kFloat ? 1e-5 : 3e-2));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
