#include "comigs/adapter/mixture.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "low_rank.hpp"
#include "mixed_activation.hpp"

namespace comigs::adapter {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum Input {
  in_x,
  in_gate,
  in_gate_sum,
  in_up,
  in_up_bias,
  in_down,
  in_down_bias,
  in_up_A,
  in_up_B,
  in_down_A,
  in_down_B,
  in_scale,
  inputs
};

class MixtureFunction : public torch::autograd::Function<MixtureFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gate,
                            const at::Tensor& gate_sum, const at::Tensor& up, const at::Tensor& up_bias,
                            const at::Tensor& down, const at::Tensor& down_bias, const at::Tensor& up_A,
                            const at::Tensor& up_B, const at::Tensor& down_A, const at::Tensor& down_B,
                            double scale) {
    const at::Tensor hidden = at::addmm(up_bias, x, up.to(x.scalar_type()));  // [n, F]
    const at::Tensor reduced = x.mm(up_A.t()).mul_(scale);                    // [n, E R]
    const auto [mixed, weighted] = mix_activations({hidden, reduced, gate, up_B, down_A});
    at::Tensor y = mixed.mm(down.to(x.scalar_type()));
    add_low_rank(y, weighted, down_B.t().mul(scale), down_bias, gate_sum);
    context->save_for_backward(
        {x, gate, up, down, down_bias, up_A, up_B, down_A, down_B, hidden, reduced, weighted});
    context->saved_data["scale"] = scale;
    return y;
  }

  // d_ marks the gradient of the loss with respect to what follows.
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gate = saved[1], &up = saved[2], &down = saved[3], &down_bias = saved[4],
                     &up_A = saved[5], &up_B = saved[6], &down_A = saved[7], &down_B = saved[8],
                     &hidden = saved[9], &reduced = saved[10], &weighted = saved[11];
    const double scale = context->saved_data["scale"].toDouble();
    const auto needs = [&](Input input) { return context->needs_input_grad(input); };
    const auto dtype = x.scalar_type();
    const at::Tensor d_y = outputs[0].contiguous();
    const ActivationGradients d = mix_activations_backward(
        {hidden, reduced, gate, up_B, down_A}, d_y.mm(down.to(dtype).t()), d_y.mm(down_B).mul_(scale),
        {.gate = needs(in_gate), .up_B = needs(in_up_B), .down_A = needs(in_down_A)});
    const at::Tensor d_reduced = d.reduced * scale;
    variable_list gradients(inputs);
    if (needs(in_x)) gradients[in_x] = d.hidden.mm(up.to(dtype).t()).addmm_(d_reduced, up_A);
    gradients[in_gate] = d.gate;
    if (needs(in_gate_sum)) gradients[in_gate_sum] = d_y.mv(down_bias).to(at::kFloat).unsqueeze(1);
    if (needs(in_up_A)) gradients[in_up_A] = d_reduced.t().mm(x);
    gradients[in_up_B] = d.up_B;
    gradients[in_down_A] = d.down_A;
    if (needs(in_down_B)) gradients[in_down_B] = d_y.t().mm(weighted).mul_(scale);
    return gradients;
  }
};

}  // namespace

at::Tensor mixture_mlp(const at::Tensor& x, const at::Tensor& gate, const model::FrozenMlp& mlp,
                       const ExpertFactors& factors, const at::Tensor& gate_sum) {
  const at::Tensor sum = gate_sum.defined() ? gate_sum : at::ones({x.size(0), 1}, x.options());
  return MixtureFunction::apply(x, gate, sum, mlp.up, mlp.up_bias, mlp.down, mlp.down_bias, factors.up_A,
                                factors.up_B, factors.down_A, factors.down_B, factors.scale);
}

}  // namespace comigs::adapter
