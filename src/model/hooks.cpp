#include "comigs/model/hooks.hpp"

#include <ATen/ATen.h>

namespace comigs::model {

at::Tensor Hooks::project(std::size_t /*layer*/, std::size_t /*site*/, const at::Tensor& x,
                          const Weight& weight) {
  return at::addmm(weight.bias, x, weight.matrix.to(x.scalar_type()));
}

at::Tensor Hooks::attend(std::size_t /*layer*/, const Heads& heads) {
  return at::scaled_dot_product_attention(heads.queries, heads.keys, heads.values, {}, 0.0, true);
}

at::Tensor Hooks::mlp(std::size_t /*layer*/, const at::Tensor& x, const FrozenMlp& mlp) {
  return plain_mlp(x, mlp);
}

at::Tensor plain_mlp(const at::Tensor& x, const FrozenMlp& mlp) {
  const auto dtype = x.scalar_type();
  const at::Tensor hidden = at::addmm(mlp.up_bias, x, mlp.up.to(dtype));
  return at::addmm(mlp.down_bias, at::gelu(hidden, gelu_approximation), mlp.down.to(dtype));
}

}  // namespace comigs::model
