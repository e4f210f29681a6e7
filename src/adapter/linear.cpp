// A frozen projection with a low-rank term beside it, without a weight gradient and without a second pass
// over what the frozen product wrote.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comigs/adapter/lora_experts.hpp"
#include "low_rank.hpp"

namespace comigs::adapter {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum Input { in_x, in_A, in_B, in_weight, in_scale, inputs };

class LoraLinearFunction : public torch::autograd::Function<LoraLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& A,
                            const at::Tensor& B, const model::Weight& weight, double scale) {
    const auto dtype = x.scalar_type();
    const at::Tensor reduced = x.mm(A.to(dtype).t()).mul_(scale);  // [n, R]
    at::Tensor y = x.mm(weight.matrix.to(dtype));
    add_low_rank(y, reduced, B.to(dtype).t(), weight.bias);
    context->save_for_backward({x, weight.matrix, A, B, reduced});
    context->saved_data["scale"] = scale;
    return y;
  }

  // d_ marks the gradient of the loss with respect to what follows.
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &A = saved[2], &B = saved[3], &reduced = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const auto needs = [&](Input input) { return context->needs_input_grad(input); };
    const auto dtype = x.scalar_type();
    const at::Tensor d_y = outputs[0].contiguous();
    const at::Tensor d_reduced = d_y.mm(B.to(dtype)).mul_(scale);
    variable_list gradients(inputs);
    if (needs(in_x)) gradients[in_x] = d_y.mm(weight.to(dtype).t()).addmm_(d_reduced, A.to(dtype));
    if (needs(in_A)) gradients[in_A] = d_reduced.t().mm(x).to(A.scalar_type());
    if (needs(in_B)) gradients[in_B] = d_y.t().mm(reduced).to(B.scalar_type());
    return gradients;
  }
};

}  // namespace

void add_low_rank(at::Tensor& y, const at::Tensor& reduced, const at::Tensor& factor, const at::Tensor& bias,
                  const at::Tensor& times) {
  if (!bias.defined()) {
    y.addmm_(reduced, factor);
    return;
  }
  const at::Tensor column =
      times.defined() ? times.to(reduced.scalar_type()) : at::ones({reduced.size(0), 1}, reduced.options());
  y.addmm_(at::cat({reduced, column}, 1), at::cat({factor, bias.unsqueeze(0)}));
}

at::Tensor lora_linear(const at::Tensor& x, const model::Weight& weight, const Lora& lora, double scale) {
  return LoraLinearFunction::apply(x, lora.A, lora.B, weight, scale);
}

}  // namespace comigs::adapter
