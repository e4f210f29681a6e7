// What LoRA experts add to a layer: LoRA on a projection, the gate of the experts, the experts around an MLP
// block.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comigs/adapter/mixture.hpp"
#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/routing.hpp"
#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

/// A LoRA on each of the MLP's projections.
struct Expert {
  std::vector<Lora> up;  ///< as model::FrozenMlp has them
  Lora down;
};

struct LayerParameters {
  std::vector<Lora> attention;  ///< one for each model::Architecture::attention
  std::vector<Expert> experts;
  at::Tensor router;  ///< [E, C]; undefined where nothing is routed
};

/// The leaves of a user with LoRA experts, by layer.
[[nodiscard]] std::vector<LayerParameters> lora_layers(const Parameters& parameters);

/// x [n, in] W [in, out] + bias + (x A^T) B^T, in the precision of x, in which the LoRA is given, gamma in
/// its A. W and the bias are frozen and get no gradient.
[[nodiscard]] at::Tensor lora_linear(const at::Tensor& x, const model::Weight& weight, const Lora& lora);

/// The gate of each token [n, E] and, where a router decides, what it decided. x: the MLP block's own input,
/// which the router [E, C] has read where there is one.
[[nodiscard]] LayerRouting route(const model::Normed& x, const UserModel& user_model);

/// The MLP block with the user's experts, of which there is at least one. x [n, C], gate [n, E].
[[nodiscard]] at::Tensor expert_mlp(const at::Tensor& x, const model::FrozenMlp& mlp,
                                    const ExpertFactors& experts, const at::Tensor& gate,
                                    const UserModel& user_model);

}  // namespace comigs::adapter
