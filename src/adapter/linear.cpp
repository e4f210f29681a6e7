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

enum Input { in_x, in_A, in_B, in_weight, inputs };

// How many columns of zeros make `columns` a multiple of what matrix units read at a time; none in float32,
// which these have no part in.
std::int64_t missing_columns(std::int64_t columns, const at::Tensor& like) {
  constexpr std::int64_t together = 8;
  return like.scalar_type() == at::kBFloat16 ? (together - columns % together) % together : 0;
}

class LoraLinearFunction : public torch::autograd::Function<LoraLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& A,
                            const at::Tensor& B, const model::Weight& weight) {
    const at::Tensor reduced = model::product(x, A.t());  // [n, R]
    at::Tensor y = model::product(x, model::in_precision(weight.matrix, x.scalar_type()), weight.bias);
    add_low_rank(y, reduced, B.t());
    context->save_for_backward({x, weight.matrix, A, B, reduced});
    return y;
  }

  // d_ marks the gradient of the loss with respect to what follows.
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &A = saved[2], &B = saved[3], &reduced = saved[4];
    const auto needs = [&](Input input) { return context->needs_input_grad(input); };
    const at::Tensor d_y = outputs[0].contiguous();
    const at::Tensor d_reduced = model::product(d_y, B);
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

void add_low_rank(at::Tensor& y, const at::Tensor& reduced, const at::Tensor& factor) {
  const std::int64_t more = missing_columns(reduced.size(1), reduced);
  if (more == 0)
    y.addmm_(reduced, factor);
  else
    y.addmm_(at::cat({reduced, at::zeros({reduced.size(0), more}, reduced.options())}, 1),
             at::cat({factor, at::zeros({more, factor.size(1)}, factor.options())}));
}

at::Tensor lora_linear(const at::Tensor& x, const model::Weight& weight, const Lora& lora) {
  return LoraLinearFunction::apply(x, lora.A, lora.B, weight);
}

}  // namespace comigs::adapter
