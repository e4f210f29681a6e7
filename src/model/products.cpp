#include "comigs/model/products.hpp"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>

namespace comigs::model {

namespace {

using Scalars = c10::List<std::optional<at::Scalar>>;
// x W^T + bias; the rest is about an activation afterwards.
using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                          std::string_view, Scalars, std::optional<std::string_view>);

// LibTorch calls oneDNN for float32 products in this operator alone; undefined where it has none.
const std::optional<c10::TypedOperatorHandle<Linear>>& onednn() {
  static const auto found = []() -> std::optional<c10::TypedOperatorHandle<Linear>> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    return at::hasMKLDNN() && schema ? std::optional(schema->typed<Linear>()) : std::nullopt;
  }();
  return found;
}

// Below, calling oneDNN takes longer than the product; above, it is as fast for a single row.
constexpr std::int64_t least_multiplications = 1 << 20;

bool by_onednn(const at::Tensor& x, const at::Tensor& matrix) {
  return x.scalar_type() == at::kFloat && x.is_cpu() && x.numel() * matrix.size(1) >= least_multiplications &&
         multiplies_by_onednn();
}

using NoGradients = at::AutoDispatchBelowADInplaceOrView;

}  // namespace

bool has_onednn() { return onednn().has_value(); }

bool multiplies_by_onednn() {
#ifdef __x86_64__
  static const bool faster =
      __builtin_cpu_is("amd") != 0 && __builtin_cpu_supports("avx512f") != 0 && at::hasMKL();
  return faster && has_onednn();
#else
  return false;
#endif
}

at::Tensor onednn_product(const at::Tensor& x, const at::Tensor& matrix, const at::Tensor& bias) {
  const NoGradients guard;
  return onednn()->call(x, matrix.t(), bias.defined() ? std::optional(bias) : std::nullopt, "none", Scalars(),
                        "");
}

at::Tensor product(const at::Tensor& x, const at::Tensor& matrix, const at::Tensor& bias) {
  const NoGradients guard;
  if (by_onednn(x, matrix)) return onednn_product(x, matrix, bias);
  return bias.defined() ? at::addmm(bias, x, matrix) : x.mm(matrix);
}

void product_to(at::Tensor& to, const at::Tensor& x, const at::Tensor& matrix, const at::Tensor& bias) {
  const NoGradients guard;
  if (by_onednn(x, matrix))
    to.copy_(onednn_product(x, matrix, bias));
  else if (bias.defined())
    at::addmm_out(to, bias, x, matrix);
  else
    at::mm_out(to, x, matrix);
}

void add_product(at::Tensor& to, const at::Tensor& x, const at::Tensor& matrix) {
  const NoGradients guard;
  if (by_onednn(x, matrix))
    to.add_(onednn_product(x, matrix));
  else
    to.addmm_(x, matrix);
}

at::Tensor product_in(const std::function<at::Tensor()>& room, const at::Tensor& x,
                      const at::Tensor& matrix) {
  const NoGradients guard;
  if (by_onednn(x, matrix)) return onednn_product(x, matrix);
  at::Tensor to = room();
  return at::mm_out(to, x, matrix);
}

}  // namespace comigs::model
