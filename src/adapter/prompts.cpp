// Groups of soft prompts as a kind of adapter (mixture of prompts): in front of the text from layer l* on,
// each group seen by all of the text and by itself alone; a gate weighs, for each sequence, the attention
// that is paid to each group.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "comigs/adapter/kind.hpp"
#include "comigs/adapter/parameters.hpp"
#include "comigs/base/random.hpp"
#include "comigs/model/attention.hpp"
#include "sequence_gate.hpp"

namespace comigs::adapter {

namespace {

// By which heads are widened: fused attention wants a multiple of 8.
constexpr std::int64_t bias_features = 8;

// A third of the way up, as the paper's 10th of 32.
std::int64_t first_layer(const model::Architecture& architecture, const UserModel& user_model) {
  const std::int64_t L = architecture.layers;
  return user_model.prompt_layer.value_or(std::min(L - 1, std::max<std::int64_t>(1, (20 * L + 32) / 64)));
}

std::vector<std::string> projections(const model::Architecture& /*architecture*/) { return {"prompt"}; }

// [group 0 | group 1 | ... | gate]; shared groups come first.
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
                     .rows_are = "prompt_token",
                     .columns_are = "width",
                     .draw = draw_of_expert(user_model, expert)});
  if (user_model.gated_by_sequence())
    for (const Part& part : sequence_gate_parts(first_layer(architecture, user_model), architecture.width,
                                                user_model.gate_width, user_model.experts))
      parts.push_back(part);
  return parts;
}

std::vector<std::string_view> options() { return {"prompt_tokens", "prompt_layer", "gate_width"}; }

std::vector<std::pair<const char*, std::int64_t>> sizes(const UserModel& user_model) {
  return {{"prompt_tokens", user_model.prompt_tokens}};
}

// Trained numbers are in no product of their own; prompts go the way of tokens, once a pass.
Load load(const model::Architecture& architecture, const UserModel& user_model) {
  const auto first = static_cast<double>(first_layer(architecture, user_model)),
             above = static_cast<double>(architecture.layers) - first,
             E = static_cast<double>(user_model.experts), H = static_cast<double>(user_model.gate_width),
             P = E * static_cast<double>(user_model.prompt_tokens),
             heads = static_cast<double>(architecture.heads),
             key_value_heads = static_cast<double>(architecture.key_value_heads);
  const bool gated = user_model.gated_by_sequence();
  const double wider = gated ? bias_features : 0, head = static_cast<double>(architecture.head_size) + wider;
  // Keys and values once more, beside those of the prompts; queries too, where they are widened.
  return {.gate = gated ? H * (static_cast<double>(architecture.width) + E) : 0.0,
          .kept = above * ((2 * key_value_heads + (gated ? heads : 0.0)) * head + heads * wider),
          .kept_in_front = above * 2 * key_value_heads * head * P,
          .first_layer = first,
          .tokens_in_front = P};
}

std::vector<at::Tensor> groups_of(const Parameters& parameters) {
  std::vector<at::Tensor> groups;
  for (std::size_t i = 0; i < parameters.leaves().size(); ++i)
    if (parameters.layout().parts()[i].role == Role::expert) groups.push_back(parameters.leaves()[i]);
  return groups;
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
  PromptHooks(const Parameters& parameters, const model::BaseModel& base, at::Tensor instruction)
      : parameters_(parameters),
        base_(base),
        instruction_(std::move(instruction)),
        first_(static_cast<std::size_t>(first_layer(base.architecture(), parameters.user_model()))) {}

  // Prompts stand in front of the text; below them positions are as ever.
  [[nodiscard]] std::int64_t shift(std::size_t layer) const override {
    return layer >= first_ ? parameters_.user_model().prompt_tokens : 0;
  }

  // What is read on later is of the same sequences: their gate and the prompts are known.
  void enter(std::size_t layer, const model::ResidualStream& stream,
             const model::Sequences& sequences) override {
    if (layer != first_ || !prompts_.empty()) return;
    if (parameters_.user_model().gated_by_sequence()) weigh(stream.whole(), sequences);
    run_prompts(stream.x.scalar_type());
  }

  [[nodiscard]] at::Tensor attend(std::size_t layer, const model::Heads& text) override {
    if (layer < first_) return Hooks::attend(layer, text);
    const model::Heads& prompts = prompts_[layer - first_];
    const std::int64_t head = text.queries.size(3);
    const auto attention = [&](const model::Heads& of) {
      return model::attention(of, 1.0 / std::sqrt(static_cast<double>(head)));
    };
    const auto in_front = [&](const at::Tensor& prompt, const at::Tensor& own) {
      return at::cat({across_groups(prompt).expand({own.size(0), -1, -1, -1}), own}, 2);
    };
    if (!bias_.defined())
      return attention({.queries = text.queries,
                        .keys = in_front(prompts.keys, text.keys),
                        .values = in_front(prompts.values, text.values)});
    return attention({.queries = with_features(text.queries, at::ones({}, text.queries.options())),
                      .keys = at::cat({with_bias(across_groups(prompts.keys), head), widened(text.keys)}, 2),
                      .values = widened(in_front(prompts.values, text.values))})
        .narrow(3, 0, head);
  }

 private:
  // log g + log E: a uniform gate adds nothing, and what attention pays to a group goes with its weight.
  void weigh(const at::Tensor& x, const model::Sequences& sequences) {
    const at::Tensor logits = sequence_gate(parameters_, instruction_feature(x, sequences, instruction_));
    const at::Tensor log_gate = logits.log_softmax(-1);
    bias_ = log_gate + std::log(static_cast<double>(logits.size(1)));
    routing_.resize(static_cast<std::size_t>(base_.architecture().layers));
    routing_[first_] = sequence_routing(logits, log_gate);
  }

  // [E, heads, m, head size] -> [1, heads, E m, head size].
  static at::Tensor across_groups(const at::Tensor& prompt) {
    return prompt.transpose(0, 1).reshape({1, prompt.size(1), -1, prompt.size(3)});
  }

  static at::Tensor widened(const at::Tensor& heads) {
    return at::constant_pad_nd(heads, {0, bias_features});
  }

  // Two more features of the same value, and others that are 0.
  static at::Tensor with_features(const at::Tensor& heads, const at::Tensor& value) {
    const at::Tensor two = value.expand({heads.size(0), heads.size(1), heads.size(2), 2});
    return at::cat({heads, at::constant_pad_nd(two, {0, bias_features - 2})}, 3);
  }

  // Keys [1, heads, E m, d] -> [B, heads, E m, d + 8]: a query whose first two additional features are 1 has
  // its logit raised by the sequence's bias of the group. In two parts, so that bfloat16 keeps it.
  [[nodiscard]] at::Tensor with_bias(const at::Tensor& keys, std::int64_t head) const {
    const at::Tensor whole = bias_ * std::sqrt(static_cast<double>(head)),
                     high = whole.detach().to(keys.scalar_type()),
                     low = (whole - high.to(at::kFloat)).to(keys.scalar_type());
    const at::Tensor features = at::stack({high, low}, -1)
                                    .repeat_interleave(keys.size(2) / bias_.size(1), 1)
                                    .unsqueeze(1)
                                    .expand({-1, keys.size(1), -1, -1});
    return at::cat(
        {keys.expand({bias_.size(0), -1, -1, -1}), at::constant_pad_nd(features, {0, bias_features - 2})}, 3);
  }

  // The groups as sequences of their own, through all layers from the first on; their keys and values there.
  void run_prompts(at::ScalarType type) {
    const std::vector<at::Tensor> groups = groups_of(parameters_);
    const model::Sequences sequences{.count = static_cast<std::int64_t>(groups.size()),
                                     .length = parameters_.user_model().prompt_tokens};
    const auto layers = static_cast<std::size_t>(base_.architecture().layers);
    Keeper keeper(prompts_);
    model::ResidualStream x{
        .x = first_ == 0 ? base_.place(at::stack(groups).to(type), sequences) : at::cat(groups).to(type),
        .waiting = {}};
    for (std::size_t layer = first_; layer + 1 < layers; ++layer)
      x = through_layer(base_, layer, std::move(x), sequences, keeper);
    prompts_.push_back(
        base_.split(layers - 1, model::norm(base_.norm_1(layers - 1), x).x, sequences, keeper));
  }

  const Parameters& parameters_;
  const model::BaseModel& base_;
  at::Tensor instruction_;
  std::size_t first_;
  at::Tensor bias_;                    // [B, E] float32, where a gate decides
  std::vector<model::Heads> prompts_;  // by layer from the first on; [E, key/value heads, m, head size]
};

std::unique_ptr<AdapterHooks> hooks(const Parameters& parameters, const model::BaseModel& base,
                                    const at::Tensor& instruction) {
  return std::make_unique<PromptHooks>(parameters, base, instruction);
}

at::Tensor gate_feature(const Parameters& parameters, const model::BaseModel& base, const at::Tensor& tokens,
                        const at::Tensor& instruction) {
  PromptHooks hooks(parameters, base, instruction);  // for the positions that it gives to the text
  const auto first = static_cast<std::size_t>(first_layer(base.architecture(), parameters.user_model()));
  const at::Tensor x = model::stream_into(base, tokens, first, hooks).whole();
  const model::Sequences sequences{.count = tokens.size(0), .length = tokens.size(1)};
  return instruction_feature(x, sequences, instruction);
}

// As m tokens of the vocabulary, drawn by chance for each group, enter the first layer.
void begin(Parameters& parameters, const model::BaseModel& base, std::uint64_t seed, std::uint32_t user) {
  const at::NoGradGuard no_gradients;
  const UserModel& user_model = parameters.user_model();
  const std::int64_t m = user_model.prompt_tokens, last = first_layer(base.architecture(), user_model);
  for (std::size_t i = 0; i < parameters.leaves().size(); ++i) {
    const Part& part = parameters.layout().parts()[i];
    if (part.role != Role::expert) continue;
    RandomStream stream({.seed = seed,
                         .user = drawn_by(part, user_model, user),
                         .stream = Stream::prompt_init,
                         .step = part.draw});
    std::vector<std::int64_t> tokens;
    for (std::int64_t t = 0; t < m; ++t)
      tokens.push_back(static_cast<std::int64_t>(
          stream.below(static_cast<std::uint64_t>(base.architecture().vocabulary))));
    const model::Sequences sequences{.count = 1, .length = m};
    const at::Tensor bottom = base.embed(at::tensor(tokens, at::kLong).view({1, m}).to(base.head().device()));
    model::ResidualStream x{
        .x = last > 0 ? base.place(bottom, sequences) : bottom.view({m, base.architecture().width}),
        .waiting = {}};
    model::Hooks bare;
    for (std::int64_t layer = 0; layer < last; ++layer)
      x = through_layer(base, static_cast<std::size_t>(layer), std::move(x), sequences, bare);
    parameters.leaves()[i].detach().copy_(x.whole());
  }
}

}  // namespace

constinit const AdapterKind kinds::prompts = {.name = "prompts",
                                              .idle = "the method trains prompts",
                                              .options = options,
                                              .parts = parts,
                                              .projections = projections,
                                              .sizes = sizes,
                                              .load = load,
                                              .hooks = hooks,
                                              .weight_decay = 0.0,  // would pull them off the stream's scale
                                              .begin = begin,
                                              .gate_feature = gate_feature};

}  // namespace comigs::adapter
