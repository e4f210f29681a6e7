#include "comigs/adapter/lora_experts.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "gate.hpp"

namespace comigs::adapter {

namespace {

// The parts of a layer come in the order of their sites.
Lora& place_of(LayerParameters& layer, const Part& part, std::int64_t projections) {
  const auto site = static_cast<std::size_t>(part.site);
  if (part.role == Role::attention) {
    layer.attention.resize(std::max(layer.attention.size(), site + 1));
    return layer.attention[site];
  }
  Expert& expert = layer.experts[static_cast<std::size_t>(part.expert)];
  expert.up.resize(static_cast<std::size_t>(projections - 1));
  return part.site + 1 == projections ? expert.down : expert.up[site];
}

}  // namespace

std::vector<LayerParameters> lora_layers(const Parameters& parameters) {
  const Layout& layout = parameters.layout();
  std::vector<LayerParameters> layers(static_cast<std::size_t>(parameters.layers()));
  for (LayerParameters& layer : layers)
    layer.experts.resize(static_cast<std::size_t>(parameters.user_model().experts));
  for (std::size_t i = 0; i < layout.parts().size(); ++i) {
    const Part& part = layout.parts()[i];
    LayerParameters& layer = layers[static_cast<std::size_t>(part.layer)];
    if (part.role == Role::router) {
      layer.router = parameters.leaves()[i];
      continue;
    }
    Lora& lora = place_of(layer, part, layout.projections());
    (part.tag == Part::Tag::A ? lora.A : lora.B) = parameters.leaves()[i];
  }
  return layers;
}

LayerRouting route(const model::Normed& x, const UserModel& user_model) {
  if (!user_model.routed()) {
    const double share = 1.0 / static_cast<double>(user_model.experts);
    return {.logits = {},
            .gate = at::full({x.x.size(0), user_model.experts}, share, x.x.options().dtype(at::kFloat)),
            .distribution = {},
            .chosen = {},
            .load = {},
            .probability = {}};
  }
  return top_k_gate(x.read, std::min(user_model.top_k, user_model.experts));
}

at::Tensor expert_mlp(const at::Tensor& x, const model::FrozenMlp& mlp, const ExpertFactors& experts,
                      const at::Tensor& gate, const UserModel& user_model) {
  const at::Tensor sum = user_model.gates_sum_to_one() ? at::Tensor() : gate.sum(-1, true);
  return mixture_mlp(x, gate, mlp, experts, sum);
}

}  // namespace comigs::adapter
