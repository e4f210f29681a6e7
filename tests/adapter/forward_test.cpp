// The way through GPT-2, written out once more with plain operations and one expert at a time; and what must
// hold of any way.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/lora_experts.hpp"
#include "comigs/adapter/losses.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "comigs/model/precision.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

using test::close;

constexpr std::int64_t B = 3, T = 11, C = 16, heads = 2;

UserModel user_with(std::int64_t experts, Gate gate = Gate::top_k, std::int64_t top_k = 2) {
  return {.experts = experts,
          .generalists = {0},
          .lora_rank = 3,
          .lora_alpha = 2.0,
          .top_k = top_k,
          .gate = gate};
}

// GPT-2 with LoRA as docs/methods.md has it: no fused operation, every expert in full.
class PlainModel {
 public:
  PlainModel(const Architecture& architecture, const Parameters& parameters)
      : weights_(test::random_weights(architecture)),
        layers_(lora_layers(parameters)),
        user_(parameters.user_model()) {}

  [[nodiscard]] at::Tensor hidden(const at::Tensor& tokens) const {
    at::Tensor x =
        at::embedding(w("wte.weight"), tokens) + w("wpe.weight").narrow(0, 0, tokens.size(1));  // [B, T, C]
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const std::string h = "h." + std::to_string(l) + ".";
      x = x + attention(norm(x, h + "ln_1"), h, layers_[l]);
      x = x + block(norm(x, h + "ln_2"), h, layers_[l]);
    }
    return norm(x, "ln_f").reshape({-1, C});
  }

 private:
  [[nodiscard]] at::Tensor w(const std::string& name) const { return weights_.at(name); }

  [[nodiscard]] at::Tensor norm(const at::Tensor& x, const std::string& name) const {
    const at::Tensor centred = x - x.mean(-1, true);
    return centred / (centred.square().mean(-1, true) + 1e-5).sqrt() * w(name + ".weight") +
           w(name + ".bias");
  }

  [[nodiscard]] at::Tensor project(const at::Tensor& x, const std::string& name, const Lora* lora) const {
    at::Tensor weight = w(name + ".weight");
    if (lora != nullptr) weight = weight + user_.lora_alpha / std::sqrt(3.0) * lora->B.mm(lora->A).t();
    return x.matmul(weight) + w(name + ".bias");
  }

  [[nodiscard]] at::Tensor attention(const at::Tensor& x, const std::string& h,
                                     const LayerParameters& layer) const {
    const auto lora = [&](std::size_t i) { return layer.attention.empty() ? nullptr : &layer.attention[i]; };
    const std::vector<at::Tensor> qkv = project(x, h + "attn.c_attn", lora(0)).chunk(3, -1);
    const std::int64_t length = x.size(1), size = C / heads;
    std::vector<at::Tensor> outputs;
    for (std::int64_t head = 0; head < heads; ++head) {
      const auto part = [&](std::size_t i) { return qkv[i].narrow(-1, head * size, size); };
      at::Tensor scores = part(0).matmul(part(1).transpose(1, 2)) / std::sqrt(static_cast<double>(size));
      const at::Tensor future = at::ones({length, length}, at::kBool).triu(1);
      outputs.push_back(
          scores.masked_fill(future, -std::numeric_limits<double>::infinity()).softmax(-1).matmul(part(2)));
    }
    return project(at::cat(outputs, -1), h + "attn.c_proj", lora(1));
  }

  [[nodiscard]] at::Tensor block(const at::Tensor& x, const std::string& h,
                                 const LayerParameters& layer) const {
    const auto expert = [&](const Lora* up, const Lora* down) {
      return project(at::gelu(project(x, h + "mlp.c_fc", up), "tanh"), h + "mlp.c_proj", down);
    };
    if (layer.experts.empty()) return expert(nullptr, nullptr);
    at::Tensor y = at::zeros_like(x);
    for (std::size_t e = 0; e < layer.experts.size(); ++e)
      y = y + gate(x, layer, static_cast<std::int64_t>(e)) *
                  expert(&layer.experts[e].up[0], &layer.experts[e].down);
    return y;
  }

  // The share [B, T, 1] of an expert: what it has of the softmax over those that are not below the k-th
  // largest; of a single one, what it has of that over all.
  [[nodiscard]] at::Tensor gate(const at::Tensor& x, const LayerParameters& layer, std::int64_t e) const {
    if (!user_.routed()) return at::full({1, 1, 1}, 1.0 / static_cast<double>(user_.experts));
    const at::Tensor logits = x.matmul(layer.router.t());
    const at::Tensor least =
        std::get<0>(logits.sort(-1, true)).narrow(-1, std::min(user_.top_k, user_.experts) - 1, 1);
    const at::Tensor open = logits.ge(least).to(at::kFloat) * logits.exp();
    const at::Tensor whole = user_.top_k == 1 ? logits.exp() : open;
    return open.narrow(-1, e, 1) / whole.sum(-1, true);
  }

  test::Weights weights_;
  std::vector<LayerParameters> layers_;
  UserModel user_;
};

struct TinyModel {
  Architecture architecture = test::tiny_architecture();
  std::unique_ptr<BaseModel> base = test::tiny_base(architecture);
  at::Tensor tokens = at::arange(B * T, at::kLong).mul(11).remainder(37).view({B, T});
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(forward_pass, TinyModel)

BOOST_AUTO_TEST_CASE(agrees_with_the_plain_model) {
  for (const UserModel& user :
       {user_with(1), user_with(2), user_with(4), user_with(3, Gate::equal), user_with(2, Gate::top_k, 1),
        user_with(4, Gate::top_k, 1), UserModel{.experts = 0, .generalists = {}, .gate = Gate::none}}) {
    const Parameters parameters = test::random_parameters(architecture, user, 1);
    const Forward forward = adapter::forward(*base, tokens, parameters);
    BOOST_TEST(close(forward.hidden, PlainModel(architecture, parameters).hidden(tokens), 2e-5),
               user.experts << " experts");
    BOOST_TEST(forward.routing.size() == (user.routed() ? 2u : 0u));
  }
}

BOOST_AUTO_TEST_CASE(every_gradient_agrees_with_the_plain_model) {
  const at::Tensor targets = at::arange(B * T, at::kLong).mul(7).remainder(37);
  for (const UserModel& user : {user_with(1), user_with(2), user_with(4), user_with(2, Gate::equal),
                                user_with(2, Gate::top_k, 1), user_with(4, Gate::top_k, 1)}) {
    Parameters parameters = test::random_parameters(architecture, user, 2);
    at::Tensor gradients = parameters.gradients();
    gradients.zero_();
    cross_entropy(forward(*base, tokens, parameters).hidden, base->head(), targets).backward();
    const at::Tensor found = test::copy_of(gradients);
    gradients.zero_();
    const at::Tensor hidden = PlainModel(architecture, parameters).hidden(tokens);
    at::cross_entropy_loss(hidden.matmul(base->head().t()), targets).backward();
    for (const Slice& part :
         {parameters.layout().slice(select::attention()), parameters.layout().slice(select::experts()),
          parameters.layout().slice(select::routers())})
      if (part.count > 0) {
        BOOST_TEST(close(view(found, part), view(gradients, part), 1e-4), user.experts << " experts");
        BOOST_TEST(view(found, part).abs().max().item<float>() > 0.0f);
      }
  }
}

BOOST_AUTO_TEST_CASE(without_B_it_is_the_base) {
  const Parameters nothing(architecture, {.experts = 0, .gate = Gate::none}, at::kCPU);
  const at::Tensor expected = forward(*base, tokens, nothing).hidden;
  for (const std::int64_t experts : {1, 2, 4}) {
    Parameters parameters(architecture, user_with(experts), at::kCPU);
    parameters.initialise(1, 0);
    BOOST_TEST(close(forward(*base, tokens, parameters).hidden, expected, 2e-6));
  }
}

BOOST_AUTO_TEST_CASE(no_token_sees_the_future) {
  const Parameters parameters = test::random_parameters(architecture, user_with(2), 3);
  const at::Tensor before = forward(*base, tokens, parameters).hidden.view({B, T, C});
  at::Tensor changed = tokens.clone();
  changed.select(1, 7).add_(1).remainder_(37);
  const at::Tensor after = forward(*base, changed, parameters).hidden.view({B, T, C});
  BOOST_TEST(close(after.narrow(1, 0, 7), before.narrow(1, 0, 7), 1e-6));
  BOOST_TEST(test::relative_difference(after.narrow(1, 7, 1), before.narrow(1, 7, 1)) > 1e-3);
  BOOST_TEST(test::relative_difference(after.narrow(1, 8, 3), before.narrow(1, 8, 3)) > 1e-3);
}

BOOST_AUTO_TEST_CASE(sequences_do_not_see_each_other) {
  const Parameters parameters = test::random_parameters(architecture, user_with(2), 4);
  const at::Tensor all = forward(*base, tokens, parameters).hidden.view({B, T, C});
  BOOST_TEST(close(forward(*base, tokens.narrow(0, 1, 1), parameters).hidden, all[1], 1e-5));
}

BOOST_AUTO_TEST_CASE(load_balancing_reaches_the_routers) {
  // Top-1 of 3: the loss depends on the logits, through every layer's own routing.
  UserModel user = user_with(3);
  user.top_k = 1;
  Parameters parameters = test::random_parameters(architecture, user, 5);
  load_balancing_loss(forward(*base, tokens, parameters).routing, balancing_weights(3, 0.5)).backward();
  for (const LayerParameters& layer : lora_layers(parameters))
    BOOST_TEST(layer.router.grad().abs().max().item<float>() > 0.0f);
}

BOOST_AUTO_TEST_CASE(bf16_stays_near_float32) {
  const test::Weights weights = test::random_weights(architecture);
  const auto narrow = make_base_model(
      architecture, [&](const WeightSpec& spec) { return weights.at(spec.name).to(at::kBFloat16); });
  const Parameters parameters = test::random_parameters(architecture, user_with(2), 6, 0.05);
  const at::Tensor hidden = forward(*narrow, tokens, parameters).hidden;
  BOOST_TEST((narrow->head().scalar_type() == at::kBFloat16));
  BOOST_TEST((hidden.scalar_type() == activation_type(at::kBFloat16, at::kCPU)));
  const at::Tensor exact = forward(*base, tokens, parameters).hidden;
  // Single tokens may be routed otherwise by rounding; on average they are not.
  BOOST_TEST(((hidden.to(at::kFloat) - exact).square().mean() / exact.square().mean()).sqrt().item<double>() <
             5e-2);
  cross_entropy(hidden, narrow->head(), tokens.view(-1)).backward();
  BOOST_TEST(parameters.gradients().isfinite().all().item<bool>());
  BOOST_TEST(
      view(parameters.gradients(), parameters.layout().slice(select::routers())).abs().max().item<float>() >
      0.0f);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
