#include "comigs/model/experts.hpp"

#include <ATen/ATen.h>

#include <limits>

namespace comigs::model {

namespace {

ExpertFactors side_by_side(const std::vector<Expert>& experts, double scale, at::ScalarType dtype) {
  std::vector<at::Tensor> up_A, up_B, down_A, down_B;
  for (const Expert& expert : experts) {
    up_A.push_back(expert.up.A);
    up_B.push_back(expert.up.B);
    down_A.push_back(expert.down.A);
    down_B.push_back(expert.down.B);
  }
  return {.up_A = at::cat(up_A).to(dtype),
          .up_B = at::stack(up_B).to(dtype),
          .down_A = at::stack(down_A).to(dtype),
          .down_B = at::cat(down_B, 1).to(dtype),
          .scale = scale};
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Lora* lora,
                  double scale) {
  at::Tensor y = at::addmm(bias, x, weight);
  if (lora == nullptr) return y;
  const at::Tensor reduced = x.mm(lora->A.to(x.scalar_type()).t());
  return at::addmm(y, reduced, lora->B.to(x.scalar_type()).t(), 1, scale);
}

LayerRouting route(const at::Tensor& x, const LayerParameters& parameters, const UserModel& user_model) {
  if (!user_model.routed()) {
    const double share = 1.0 / static_cast<double>(user_model.experts);
    return {.probabilities = {},
            .gate = at::full({x.size(0), user_model.experts}, share, x.options().dtype(at::kFloat)),
            .chosen = {}};
  }
  const at::Tensor logits = at::linear(x.to(at::kFloat), parameters.router);
  const std::int64_t active = std::min(user_model.top_k, user_model.experts);
  const at::Tensor best = std::get<1>(logits.detach().topk(active, -1));
  const at::Tensor chosen = at::zeros_like(logits, logits.options().dtype(at::kBool)).scatter_(1, best, true);
  const at::Tensor kept = logits.masked_fill(chosen.logical_not(), -std::numeric_limits<float>::infinity());
  return {.probabilities = logits.softmax(-1), .gate = kept.softmax(-1), .chosen = chosen};
}

at::Tensor expert_mlp(const at::Tensor& x, const FrozenMlp& mlp, const LayerParameters& parameters,
                      const UserModel& user_model, std::vector<LayerRouting>& routing) {
  if (user_model.gate == Gate::none) return plain_mlp(x, mlp);
  LayerRouting decided = route(x, parameters, user_model);
  at::Tensor y = mixture_mlp(x, decided.gate, mlp,
                             side_by_side(parameters.experts, user_model.scale(), x.scalar_type()));
  if (user_model.routed()) routing.push_back(std::move(decided));
  return y;
}

}  // namespace comigs::model
