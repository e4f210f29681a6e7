// The regulariser that keeps all experts in use.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/routing.hpp"

namespace comigs::adapter {

/// w_j of the load-balancing loss: of expert 0 and of each of the others.
struct BalancingWeights {
  double first = 0.0, other = 0.0;
};

/// In inverse proportion to the share p_j of the tokens that expert j is to have: `importance` for expert 0,
/// the rest in equal parts for the others, who are E - 1; nothing: 1/E for each. They sum to 1. With an
/// importance of 1/2 they are those of Eq. 6: 1/((E-1)^2+1) and (E-1)/((E-1)^2+1).
[[nodiscard]] BalancingWeights balancing_weights(std::int64_t experts, std::optional<double> importance);

/// The same as the authors' program has them: w_j = 1/(k p_j), so that the loss is 1 where f_j = k p_j and
/// P_j = p_j.
[[nodiscard]] BalancingWeights published_balancing_weights(std::int64_t experts,
                                                           std::optional<double> importance,
                                                           std::int64_t top_k);

/// Eqs. 6 and 7, averaged over layers: sum_j w_j f_j P_j with f_j the fraction of tokens that have expert j
/// in their top-k and P_j the mean of its full softmax probability. Differentiable in P. float32 scalar;
/// undefined if nothing was routed. `counted` [n] float32: 1 for tokens over which f and P are taken, 0 for
/// the others; undefined: all.
[[nodiscard]] at::Tensor load_balancing_loss(const std::vector<LayerRouting>& routing,
                                             BalancingWeights weights, const at::Tensor& counted = {});

}  // namespace comigs::adapter
