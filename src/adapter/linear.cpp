// A frozen projection with a low-rank term beside it, without a weight gradient and without a second pass
// over what the frozen product wrote.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/model/products.hpp"
#include "low_rank.hpp"

namespace comigs::adapter {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum Input { in_x, in_A, in_B, in_weight, in_scale, inputs };

// How many columns of zeros make `columns` a multiple of what matrix units read at a time; none in float32,
// which these have no part in.
std::int64_t missing_columns(std::int64_t columns, const at::Tensor& like) {
  constexpr std::int64_t together = 8;
  return like.scalar_type() == at::kBFloat16 ? (together - columns % together) % together : 0;
}

class LoraLinearFunction : public torch::autograd::Function<LoraLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& A,
                            const at::Tensor& B, const model::Weight& weight, double scale) {
    const at::Tensor reduced = model::product(x, A.t()).mul_(scale);  // [n, R]
    at::Tensor y = model::product(x, model::in_precision(weight.matrix, x.scalar_type()));
    add_low_rank(y, reduced, B.t(), weight.bias);
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
    const at::Tensor d_y = outputs[0].contiguous();
    const at::Tensor d_reduced = model::product(d_y, B).mul_(scale);
    variable_list gradients(inputs);
    if (needs(in_x))
      gradients[in_x] =
          model::product(d_y, model::in_precision(weight, x.scalar_type()).t()).addmm_(d_reduced, A);
    if (needs(in_A)) gradients[in_A] = model::product(d_reduced.t(), x);
    if (needs(in_B)) gradients[in_B] = model::product(d_y.t(), reduced);
    return gradients;
  }
};

}  // namespace

void add_low_rank(at::Tensor& y, const at::Tensor& reduced, const at::Tensor& factor, const at::Tensor& bias,
                  const at::Tensor& times) {
  std::vector<at::Tensor> columns{reduced}, rows{factor};
  if (bias.defined()) {
    columns.push_back(times.defined() ? times.to(reduced.scalar_type())
                                      : at::ones({reduced.size(0), 1}, reduced.options()));
    rows.push_back(bias.unsqueeze(0));
  }
  if (const std::int64_t more = missing_columns(reduced.size(1) + (bias.defined() ? 1 : 0), reduced);
      more > 0) {
    columns.push_back(at::zeros({reduced.size(0), more}, reduced.options()));
    rows.push_back(at::zeros({more, factor.size(1)}, factor.options()));
  }
  if (columns.size() == 1) {
    y.addmm_(reduced, factor);
  } else {
    y.addmm_(at::cat(columns, 1), at::cat(rows));
  }
}

at::Tensor lora_linear(const at::Tensor& x, const model::Weight& weight, const Lora& lora, double scale) {
  return LoraLinearFunction::apply(x, lora.A, lora.B, weight, scale);
}

}  // namespace comigs::adapter
