#include "comigs/model/hooks.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comigs/model/attention.hpp"
#include "comigs/model/products.hpp"

namespace comigs::model {

at::Tensor in_precision(const at::Tensor& matrix, at::ScalarType type) {
  return matrix.scalar_type() == type ? matrix : matrix.to(type);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// silu(gate) up, of which only its arguments are kept: silu(gate) is made again in the backward pass.
class GatedSiluFunction : public torch::autograd::Function<GatedSiluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], &gradient = outputs[0];
    return {at::silu_backward(gradient * up, gate), at::silu(gate).mul_(gradient)};
  }
};

at::Tensor frozen_product(const at::Tensor& x, const Weight& weight) {
  return product(x, in_precision(weight.matrix, x.scalar_type()), weight.bias);
}

// The same, of which the matrix is kept as it is stored: a copy in the precision of x would be kept until the
// backward pass, and those of all layers together be the base once more.
class FrozenProductFunction : public torch::autograd::Function<FrozenProductFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Weight& weight) {
    context->save_for_backward({weight.matrix});
    return frozen_product(x, weight);
  }
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const at::Tensor matrix = context->get_saved_variables()[0], &gradient = outputs[0];
    return {product(gradient, in_precision(matrix, gradient.scalar_type()).t()), at::Tensor()};
  }
};

}  // namespace

std::int64_t Hooks::shift(std::size_t /*layer*/) const { return 0; }

void Hooks::enter(std::size_t /*layer*/, const ResidualStream& /*stream*/, const Sequences& /*sequences*/) {}

at::Tensor Hooks::project(std::size_t /*layer*/, std::size_t /*site*/, const at::Tensor& x,
                          const Weight& weight) {
  return model::project(x, weight);
}

at::Tensor Hooks::attend(std::size_t /*layer*/, const Heads& heads) { return attention(heads); }

at::Tensor Hooks::router(std::size_t /*layer*/) { return {}; }

at::Tensor Hooks::mlp(std::size_t /*layer*/, const Normed& x, const FrozenMlp& mlp) {
  return plain_mlp(x.x, mlp);
}

at::Tensor project(const at::Tensor& x, const Weight& weight) {
  if (!at::GradMode::is_enabled()) return frozen_product(x, weight);
  if (!weight.matrix.requires_grad() && !(weight.bias.defined() && weight.bias.requires_grad()))
    return FrozenProductFunction::apply(x, weight);
  const at::Tensor matrix = in_precision(weight.matrix, x.scalar_type());
  return weight.bias.defined() ? at::addmm(weight.bias, x, matrix) : x.mm(matrix);
}

at::Tensor activate(Activation activation, const std::vector<at::Tensor>& hidden) {
  if (activation == Activation::silu_gated) return GatedSiluFunction::apply(hidden[0], hidden[1]);
  return at::gelu(hidden[0], gelu_approximation);
}

at::Tensor plain_mlp(const at::Tensor& x, const FrozenMlp& mlp) {
  std::vector<at::Tensor> hidden;
  for (const Weight& up : mlp.up) hidden.push_back(project(x, up));
  return project(activate(mlp.activation, hidden), mlp.down);
}

}  // namespace comigs::model
