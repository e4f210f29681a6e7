// LoRA experts as a kind of adapter: what is trained, what it costs, and where it is let in.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "comigs/adapter/kind.hpp"
#include "comigs/adapter/lora_experts.hpp"
#include "pass_factors.hpp"

namespace comigs::adapter {

namespace {

using Tag = Part::Tag;

double bound(std::int64_t in) { return 1.0 / std::sqrt(static_cast<double>(in)); }

// Of the MLP block, in the order of an expert's parts.
std::vector<model::Projection> mlp_of(const model::Architecture& architecture) {
  std::vector<model::Projection> projections = architecture.up;
  projections.push_back(architecture.down);
  return projections;
}

std::vector<std::string> projections(const model::Architecture& architecture) {
  return architecture.activation == model::Activation::silu_gated
             ? std::vector<std::string>{"gate", "up", "down"}
             : std::vector<std::string>{"up", "down"};
}

std::vector<std::string_view> options() {
  return {"lora_rank", "attention_rank", "attention_sharing", "lora_alpha"};
}

std::vector<std::pair<const char*, std::int64_t>> sizes(const UserModel& user_model) {
  return {{"lora_rank", user_model.rank_of_experts()}, {"top_k", user_model.top_k}};
}

const char* width_is(const model::Architecture& architecture, std::int64_t width) {
  return width == architecture.width ? "width" : width == architecture.inner ? "inner_width" : "";
}

// A [R, in] or B [out, R] of each of the projections, layer by layer. A is drawn (Kaiming with a = sqrt 5), B
// begins as zero. `names`: what the projections are called here; `part` says what the rank is called.
void add_factor(std::vector<Part>& parts, const model::Architecture& architecture,
                const std::vector<model::Projection>& beside, const std::vector<std::string>& names,
                std::int64_t rank, Part part) {
  const std::uint32_t first_draw = part.draw;
  for (part.layer = 0; part.layer < architecture.layers; ++part.layer) {
    for (std::size_t site = 0; site < beside.size(); ++site) {
      const bool is_A = part.tag == Tag::A;
      part.site = static_cast<std::int64_t>(site);
      part.name = names[site];
      part.rows = is_A ? rank : beside[site].out;
      part.columns = is_A ? beside[site].in : rank;
      (is_A ? part.columns_are : part.rows_are) =
          width_is(architecture, is_A ? beside[site].in : beside[site].out);
      part.bound = is_A ? bound(beside[site].in) : 0.0;
      part.draw = first_draw + static_cast<std::uint32_t>(site);
      parts.push_back(part);
    }
  }
}

// [attention | expert 0 | expert 1 | ... | routers]; attention and each expert are [A of every layer | B of
// every layer]. Experts that users share come first, so that shared slices look alike for users with
// different numbers of experts.
std::vector<Part> parts(const model::Architecture& architecture, const UserModel& user_model) {
  std::vector<Part> parts;
  const char* const of_attention = user_model.attention_rank ? "attention_rank" : "lora_rank";
  std::vector<std::string> sites;
  for (const model::Projection& projection : architecture.attention) sites.push_back(projection.name);
  for (const Tag tag : {Tag::A, Tag::B})
    add_factor(parts, architecture, architecture.attention, sites, user_model.rank_of_attention(),
               {.role = Role::attention, .tag = tag, .rows_are = of_attention, .columns_are = of_attention});
  for (std::int64_t expert = 0; expert < user_model.experts; ++expert)
    for (const Tag tag : {Tag::A, Tag::B})
      add_factor(parts, architecture, mlp_of(architecture), projections(architecture), user_model.lora_rank,
                 {.role = Role::expert,
                  .tag = tag,
                  .expert = expert,
                  .rows_are = "lora_rank",
                  .columns_are = "lora_rank",
                  .draw = draw_of_expert(user_model, expert)});
  if (!user_model.routed()) return parts;
  for (std::int64_t layer = 0; layer < architecture.layers; ++layer)
    parts.push_back({.role = Role::router,
                     .tag = Tag::whole,
                     .layer = layer,
                     .name = "weight",
                     .rows = user_model.experts,
                     .columns = architecture.width,
                     .rows_are = "expert",
                     .columns_are = "width",
                     .bound = bound(architecture.width)});
  return parts;
}

// An expert's factors on the model's width are multiplied for every token, those on the inner width where the
// token is sent to it.
Load load(const model::Architecture& architecture, const UserModel& user_model) {
  const auto layers = static_cast<double>(architecture.layers),
             experts = static_cast<double>(user_model.experts),
             rank = static_cast<double>(user_model.lora_rank),
             attention_rank = static_cast<double>(user_model.rank_of_attention()),
             ups = static_cast<double>(architecture.up.size()),
             width = static_cast<double>(architecture.width), inner = static_cast<double>(architecture.inner),
             active = user_model.routed()
                          ? static_cast<double>(std::min(user_model.top_k, user_model.experts))
                          : experts;
  double beside_attention = 0.0;
  for (const model::Projection& projection : architecture.attention)
    beside_attention += attention_rank * static_cast<double>(projection.in + projection.out);
  const double factors = rank * (experts * width + active * inner) * (ups + 1) + beside_attention;
  const auto sites = static_cast<double>(architecture.attention.size());
  // Low-rank terms of attention and of the experts, the gate and what it was made of.
  return {.factors = layers * factors,
          .routers = user_model.routed() ? layers * experts * width : 0.0,
          .kept = layers * (sites * attention_rank + (ups + 1) * experts * rank + 4 * experts),
          .passing = (ups + 2) * experts * rank,
          .routing = layers * 3 * experts,
          .side_by_side = experts * rank * (ups + 1) * width + beside_attention,
          .side_by_side_in_float32 = experts * rank * (ups + 1) * inner};
}

class LoraHooks : public AdapterHooks {
 public:
  explicit LoraHooks(const Parameters& parameters)
      : user_model_(parameters.user_model()), parameters_(parameters) {
    for (std::size_t i = 0; i < parameters.leaves().size(); ++i)
      if (parameters.layout().parts()[i].role == Role::router) routers_.push_back(parameters.leaves()[i]);
  }

  [[nodiscard]] at::Tensor project(std::size_t layer, std::size_t site, const at::Tensor& x,
                                   const model::Weight& weight) override {
    if (user_model_.gate == Gate::none) return Hooks::project(layer, site, x, weight);
    return lora_linear(x, weight, factors(layer, x).attention[site]);
  }

  [[nodiscard]] at::Tensor router(std::size_t layer) override {
    return user_model_.routed() ? routers_[layer] : at::Tensor();
  }

  [[nodiscard]] at::Tensor mlp(std::size_t layer, const model::Normed& x,
                               const model::FrozenMlp& mlp) override {
    if (user_model_.gate == Gate::none) return Hooks::mlp(layer, x, mlp);
    LayerRouting decided = route(x, user_model_);
    const at::Tensor y = expert_mlp(x.x, mlp, factors(layer, x.x).experts, decided.gate, user_model_);
    if (user_model_.routed()) routing_.push_back(std::move(decided));
    return y;
  }

 private:
  // All layers', with the first activations that there are.
  const LayerFactors& factors(std::size_t layer, const at::Tensor& x) {
    if (factors_.empty()) factors_ = pass_factors(parameters_, x.scalar_type());
    return factors_[layer];
  }

  const UserModel& user_model_;
  const Parameters& parameters_;
  std::vector<at::Tensor> routers_;  // by layer, [E, C]
  std::vector<LayerFactors> factors_;
};

std::unique_ptr<AdapterHooks> hooks(const Parameters& parameters, const model::BaseModel& /*base*/,
                                    const at::Tensor& /*instruction*/) {
  return std::make_unique<LoraHooks>(parameters);
}

}  // namespace

constinit const AdapterKind kinds::lora = {.name = "lora",
                                           .idle = "the method trains LoRA",
                                           .options = options,
                                           .parts = parts,
                                           .projections = projections,
                                           .sizes = sizes,
                                           .load = load,
                                           .hooks = hooks,
                                           .weight_decay = 0.01,
                                           .chosen_by_budget = true};

}  // namespace comigs::adapter
