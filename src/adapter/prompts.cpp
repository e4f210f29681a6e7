// Groups of soft prompts as a kind of adapter (mixture of prompts): in front of the text from layer l* on,
// each group seen by all of the text and by itself alone.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "comigs/adapter/kind.hpp"
#include "comigs/adapter/parameters.hpp"
#include "comigs/base/random.hpp"

namespace comigs::adapter {

namespace {

// A third of the way up, as the paper's 10th of 32.
std::int64_t first_layer(const model::Architecture& architecture, const UserModel& user_model) {
  const std::int64_t L = architecture.layers;
  return user_model.prompt_layer.value_or(std::min(L - 1, std::max<std::int64_t>(1, (20 * L + 32) / 64)));
}

std::vector<std::string> projections(const model::Architecture& /*architecture*/) { return {"prompt"}; }

// [group 0 | group 1 | ...]; shared groups come first.
std::vector<Part> parts(const model::Architecture& architecture, const UserModel& user_model) {
  std::vector<Part> parts;
  for (std::int64_t expert = 0; expert < user_model.experts; ++expert)
    parts.push_back({.role = Role::expert,
                     .tag = Part::Tag::whole,
                     .layer = first_layer(architecture, user_model),
                     .expert = expert,
                     .name = "prompt",
                     .rows = user_model.prompt_tokens,
                     .columns = architecture.width,
                     .draw = draw_of_expert(user_model, expert)});
  return parts;
}

// Trained numbers are in no product of their own; prompts go the way of tokens, once a pass.
Load load(const model::Architecture& architecture, const UserModel& user_model) {
  const auto first = static_cast<double>(first_layer(architecture, user_model)),
             key_values = static_cast<double>(architecture.key_value_heads * architecture.head_size);
  // Keys and values once more, beside those of the prompts.
  return {.kept = (static_cast<double>(architecture.layers) - first) * 2 * key_values,
          .first_layer = first,
          .tokens_in_front = static_cast<double>(user_model.experts * user_model.prompt_tokens)};
}

// Attention as ever, and what it was of.
class Keeper : public model::Hooks {
 public:
  explicit Keeper(std::vector<model::Heads>& kept) : kept_(kept) {}

  [[nodiscard]] at::Tensor attend(std::size_t layer, const model::Heads& heads) override {
    kept_.push_back(heads);
    return Hooks::attend(layer, heads);
  }

 private:
  std::vector<model::Heads>& kept_;
};

class PromptHooks : public AdapterHooks {
 public:
  PromptHooks(const Parameters& parameters, const model::BaseModel& base)
      : parameters_(parameters),
        base_(base),
        first_(static_cast<std::size_t>(first_layer(base.architecture(), parameters.user_model()))) {}

  // Prompts stand in front of the text; below them positions are as ever.
  [[nodiscard]] std::int64_t shift(std::size_t layer) const override {
    return layer >= first_ ? parameters_.user_model().prompt_tokens : 0;
  }

  void enter(std::size_t layer, const at::Tensor& x, const model::Sequences& /*sequences*/) override {
    if (layer == first_) run_prompts(x.scalar_type());
  }

  [[nodiscard]] at::Tensor attend(std::size_t layer, const model::Heads& text) override {
    if (layer < first_) return Hooks::attend(layer, text);
    const model::Heads& prompts = prompts_[layer - first_];
    const auto in_front = [&](const at::Tensor& prompt, const at::Tensor& own) {
      const std::int64_t groups = prompt.size(0) * prompt.size(2);
      const at::Tensor all = prompt.transpose(0, 1).reshape({1, own.size(1), groups, own.size(3)});
      return at::cat({all.expand({own.size(0), -1, -1, -1}), own}, 2);
    };
    const at::Tensor keys = in_front(prompts.keys, text.keys), values = in_front(prompts.values, text.values);
    const bool grouped = keys.size(1) != text.queries.size(1);
    return at::scaled_dot_product_attention(text.queries, keys, values, mask(text, keys.size(2)), 0.0, false,
                                            std::nullopt, grouped);
  }

 private:
  // The groups as sequences of their own, through all layers from the first on; their keys and values there.
  void run_prompts(at::ScalarType type) {
    const std::vector<at::Tensor>& groups = parameters_.leaves();
    const model::Sequences sequences{.count = static_cast<std::int64_t>(groups.size()),
                                     .length = parameters_.user_model().prompt_tokens};
    const auto layers = static_cast<std::size_t>(base_.architecture().layers);
    Keeper keeper(prompts_);
    at::Tensor x =
        first_ == 0 ? base_.place(at::stack(groups).to(type), sequences) : at::cat(groups).to(type);
    prompts_.clear();
    for (std::size_t layer = first_; layer + 1 < layers; ++layer)
      x = through_layer(base_, layer, std::move(x), sequences, keeper);
    prompts_.push_back(base_.split(layers - 1, base_.norm_1(layers - 1, x), sequences, keeper));
  }

  // [T, P + T]: all prompts, and of the text what is not later; nothing where a single query sees all.
  [[nodiscard]] std::optional<at::Tensor> mask(const model::Heads& text, std::int64_t keys) {
    const std::int64_t T = text.queries.size(2);
    if (T == 1) return std::nullopt;
    if (!mask_.defined()) mask_ = at::ones({T, keys}, text.queries.options().dtype(at::kBool)).tril(keys - T);
    return mask_;
  }

  const Parameters& parameters_;
  const model::BaseModel& base_;
  std::size_t first_;
  std::vector<model::Heads> prompts_;  // by layer from the first on; [E, key/value heads, m, head size]
  at::Tensor mask_;
};

std::unique_ptr<AdapterHooks> hooks(const Parameters& parameters, const model::BaseModel& base) {
  return std::make_unique<PromptHooks>(parameters, base);
}

// As m tokens of the vocabulary, drawn by chance for each group, enter the first layer.
void begin(Parameters& parameters, const model::BaseModel& base, std::uint64_t seed, std::uint32_t user) {
  const at::NoGradGuard no_gradients;
  const UserModel& user_model = parameters.user_model();
  const std::int64_t m = user_model.prompt_tokens, last = first_layer(base.architecture(), user_model);
  for (std::size_t i = 0; i < parameters.leaves().size(); ++i) {
    const Part& part = parameters.layout().parts()[i];
    RandomStream stream({.seed = seed,
                         .user = drawn_by(part, user_model, user),
                         .stream = Stream::prompt_init,
                         .step = part.draw});
    std::vector<std::int64_t> tokens;
    for (std::int64_t t = 0; t < m; ++t)
      tokens.push_back(static_cast<std::int64_t>(
          stream.below(static_cast<std::uint64_t>(base.architecture().vocabulary))));
    const model::Sequences sequences{.count = 1, .length = m};
    at::Tensor x = base.embed(at::tensor(tokens, at::kLong).view({1, m}).to(base.head().device()));
    x = last > 0 ? base.place(x, sequences) : x.view({m, base.architecture().width});
    model::Hooks bare;
    for (std::int64_t layer = 0; layer < last; ++layer)
      x = through_layer(base, static_cast<std::size_t>(layer), x, sequences, bare);
    parameters.leaves()[i].detach().copy_(x);
  }
}

}  // namespace

constinit const AdapterKind kinds::prompts = {.name = "prompts",
                                              .parts = parts,
                                              .projections = projections,
                                              .load = load,
                                              .hooks = hooks,
                                              .begin = begin};

}  // namespace comigs::adapter
