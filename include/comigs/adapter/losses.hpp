// The regulariser that keeps all experts in use.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/routing.hpp"

namespace comigs::adapter {

/// w_j of the load-balancing loss.
enum class BalancingWeights {
  uniform,     ///< 1/E
  generalist,  ///< Eq. 6: 1/((E-1)^2+1) for expert 0, (E-1)/((E-1)^2+1) for the others
};

/// Eqs. 6 and 7, averaged over layers: sum_j w_j f_j P_j with f_j the fraction of tokens that have expert j
/// in their top-k and P_j the mean of its full softmax probability. Differentiable in P. float32 scalar;
/// undefined if nothing was routed. `counted` [n] float32: 1 for tokens over which f and P are taken, 0 for
/// the others; undefined: all.
[[nodiscard]] at::Tensor load_balancing_loss(const std::vector<LayerRouting>& routing, BalancingWeights kind,
                                             const at::Tensor& counted = {});

}  // namespace comigs::adapter
