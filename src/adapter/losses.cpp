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

at::Tensor load_balancing_loss(const std::vector<LayerRouting>& routing, BalancingWeights kind,
                               const at::Tensor& counted) {
  if (routing.empty()) return {};
  const at::Tensor& first = routing.front().load;
  const at::Tensor weights = balancing_weights(kind, first.size(0), first.options());
  at::Tensor sum;
  for (const LayerRouting& whole : routing) {
    const LayerRouting layer = over(whole, counted);
    const at::Tensor loss = (weights * layer.load * layer.probability).sum();
    sum = sum.defined() ? sum + loss : loss;
  }
  return sum / static_cast<double>(routing.size());
}

}  // namespace comigs::adapter
