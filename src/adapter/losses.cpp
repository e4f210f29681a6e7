#include "comigs/adapter/losses.hpp"

#include <ATen/ATen.h>

namespace comigs::adapter {

namespace {

at::Tensor balancing_weights(BalancingWeights kind, std::int64_t experts, const at::TensorOptions& options) {
  const auto others = static_cast<double>(experts - 1);
  if (kind == BalancingWeights::uniform)
    return at::full({experts}, 1.0 / static_cast<double>(experts), options);
  at::Tensor weights = at::full({experts}, others / (others * others + 1.0), options);
  weights[0] = 1.0 / (others * others + 1.0);
  return weights;
}

}  // namespace

at::Tensor load_balancing_loss(const std::vector<LayerRouting>& routing, BalancingWeights kind) {
  if (routing.empty()) return {};
  const at::Tensor& first = routing.front().load;
  const at::Tensor weights = balancing_weights(kind, first.size(0), first.options());
  at::Tensor sum;
  for (const LayerRouting& layer : routing) {
    const at::Tensor loss = (weights * layer.load * layer.probability).sum();
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum / static_cast<double>(routing.size());
}

}  // namespace comigs::adapter
