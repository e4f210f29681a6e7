// The factors of every layer as its products read them: laid out once a pass, not once a layer.
#pragma once

#include <vector>

#include "comigs/adapter/lora_experts.hpp"

namespace comigs::adapter {

struct LayerFactors {
  std::vector<Lora> attention;  ///< one for each model::Architecture::attention
  ExpertFactors experts;
};

/// Of a user with LoRA experts, all layers; what products multiply in the precision of the `activations`, one
/// of A and B times gamma. What comes of it is differentiable in the leaves that are tracked, whose gradients
/// are added to when all layers' are known.
[[nodiscard]] std::vector<LayerFactors> pass_factors(const Parameters& parameters,
                                                     at::ScalarType activations);

}  // namespace comigs::adapter
