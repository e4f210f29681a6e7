// FDLoRA's last step: each user's own LoRA and the averaged one are fused (Qi et al. 2024, arXiv:2406.07925).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace comigs::federation {

/// Of the user's own factors, as it trained them in the last round, and of the averaged ones.
struct FusionWeights {
  double own = 0.0, average = 0.0;
};

/// Both in [-1, 1]: those with the smallest loss (nats a token) + 0.05 (|own| + |average|) among the nine on
/// a grid of 0, 1/2 and 1 and the neighbours of the best so far at 1/4, then at 1/8. The authors of FDLoRA
/// search the same square and the same sum without gradients too, by chance. Nothing where no loss is finite.
[[nodiscard]] std::optional<FusionWeights> search_fusion(const std::function<double(FusionWeights)>& loss);
/// The most that it asks for.
inline constexpr std::int64_t fusions_tried = 9 + 2 * 8;

}  // namespace comigs::federation
