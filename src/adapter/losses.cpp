#include "comigs/adapter/losses.hpp"

#include <ATen/ATen.h>

namespace comigs::adapter {

namespace {

// 1/p_j.
BalancingWeights inverse_shares(std::int64_t experts, std::optional<double> importance) {
  const auto others = static_cast<double>(experts - 1);
  if (!importance) return {.first = others + 1.0, .other = others + 1.0};
  return {.first = 1.0 / *importance, .other = others / (1.0 - *importance)};
}

at::Tensor on_device(BalancingWeights weights, std::int64_t experts, const at::TensorOptions& options) {
  at::Tensor all = at::full({experts}, weights.other, options);
  all[0] = weights.first;
  return all;
}

// f and P of one layer over the tokens that count.
LayerRouting over(const LayerRouting& layer, const at::Tensor& counted) {
  if (!counted.defined()) return layer;
  const at::Tensor share = (counted / counted.sum()).unsqueeze(0);  // [1, n]
  LayerRouting part = layer;
  part.load = share.mm(layer.chosen.to(at::kFloat)).squeeze(0);
  part.probability = share.mm(layer.logits.softmax(-1)).squeeze(0);
  return part;
}

}  // namespace

BalancingWeights balancing_weights(std::int64_t experts, std::optional<double> importance) {
  const BalancingWeights inverse = inverse_shares(experts, importance);
  const double sum = inverse.first + static_cast<double>(experts - 1) * inverse.other;
  return {.first = inverse.first / sum, .other = inverse.other / sum};
}

BalancingWeights published_balancing_weights(std::int64_t experts, std::optional<double> importance,
                                             std::int64_t top_k) {
  const BalancingWeights inverse = inverse_shares(experts, importance);
  const auto k = static_cast<double>(top_k);
  return {.first = inverse.first / k, .other = inverse.other / k};
}

at::Tensor load_balancing_loss(const std::vector<LayerRouting>& routing, BalancingWeights weights,
                               const at::Tensor& counted) {
  if (routing.empty()) return {};
  const at::Tensor& first = routing.front().load;
  const at::Tensor w = on_device(weights, first.size(0), first.options());
  std::vector<at::Tensor> loads, probabilities;
  for (const LayerRouting& whole : routing) {
    const LayerRouting layer = over(whole, counted);
    loads.push_back(layer.load);
    probabilities.push_back(layer.probability);
  }
  return (at::stack(loads) * w * at::stack(probabilities)).sum() / static_cast<double>(routing.size());
}

}  // namespace comigs::adapter
