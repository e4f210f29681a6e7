#include "comigs/adapter/lora_hooks.hpp"

#include <ATen/ATen.h>

namespace comigs::adapter {

at::Tensor LoraHooks::project(std::size_t layer, std::size_t site, const at::Tensor& x,
                              const model::Weight& weight) {
  const std::vector<Lora>& loras = parameters_.layers()[layer].attention;
  if (loras.empty()) return Hooks::project(layer, site, x, weight);
  return lora_linear(x, weight, loras[site], parameters_.user_model().scale());
}

at::Tensor LoraHooks::mlp(std::size_t layer, const at::Tensor& x, const model::FrozenMlp& mlp) {
  const UserModel& user_model = parameters_.user_model();
  if (user_model.gate == Gate::none) return Hooks::mlp(layer, x, mlp);
  LayerRouting decided;
  const at::Tensor y = expert_mlp(x, mlp, parameters_.layers()[layer], user_model, decided);
  if (user_model.routed()) routing_.push_back(std::move(decided));
  return y;
}

Forward forward(const model::BaseModel& base, const at::Tensor& tokens, const Parameters& parameters) {
  LoraHooks hooks(parameters);
  const at::Tensor hidden = model::forward(base, tokens, hooks);
  return {.hidden = hidden, .routing = hooks.routing()};
}

}  // namespace comigs::adapter
