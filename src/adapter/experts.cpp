#include "comigs/adapter/experts.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "gate.hpp"

namespace comigs::adapter {

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

LayerRouting route(const at::Tensor& x, const LayerParameters& parameters, const UserModel& user_model) {
  if (!user_model.routed()) {
    const double share = 1.0 / static_cast<double>(user_model.experts);
    return {.gate = at::full({x.size(0), user_model.experts}, share, x.options().dtype(at::kFloat)),
            .distribution = {},
            .chosen = {},
            .load = {},
            .probability = {}};
  }
  const at::Tensor logits = at::linear(x.to(at::kFloat), parameters.router);
  return top_k_gate(logits, std::min(user_model.top_k, user_model.experts));
}

at::Tensor expert_mlp(const at::Tensor& x, const model::FrozenMlp& mlp, const LayerParameters& parameters,
                      const UserModel& user_model, LayerRouting& routing) {
  routing = route(x, parameters, user_model);
  const at::Tensor sum = user_model.gates_sum_to_one() ? at::Tensor() : routing.gate.sum(-1, true);
  return mixture_mlp(x, routing.gate, mlp,
                     side_by_side(parameters.experts, user_model.scale(), x.scalar_type()), sum);
}

}  // namespace comigs::adapter
