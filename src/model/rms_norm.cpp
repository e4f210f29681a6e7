#include "rms_norm.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "comigs/kernels/bfloat16.hpp"
#include "comigs/kernels/rms_norm.hpp"

namespace comigs::model {

namespace {

using kernels::Bfloat16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class Number>
const Number* rows_of(const at::Tensor& tensor) {
  return static_cast<const Number*>(tensor.const_data_ptr());
}
template <class Number>
Number* rows_to(const at::Tensor& tensor) {
  return static_cast<Number*>(tensor.mutable_data_ptr());
}

// Of about this many numbers a thread takes rows at a time.
constexpr std::int64_t numbers_at_a_time = 1 << 14;

template <class Visit>
void over_rows(const at::Tensor& x, const Visit& visit) {
  const std::int64_t width = x.size(-1);
  at::parallel_for(0, x.numel() / width, std::max<std::int64_t>(numbers_at_a_time / width, 1), visit);
}

template <class Number>
void norm_forward(const at::Tensor& x, const at::Tensor& weight, float epsilon, const at::Tensor& y,
                  const at::Tensor& inverse) {
  const kernels::RmsNormForward<Number> pass{.rows = inverse.numel(),
                                             .width = x.size(-1),
                                             .epsilon = epsilon,
                                             .x = rows_of<Number>(x),
                                             .weight = rows_of<Number>(weight),
                                             .y = rows_to<Number>(y),
                                             .inverse = rows_to<float>(inverse)};
  over_rows(x, [&](std::int64_t begin, std::int64_t end) { rms_norm_forward(pass, begin, end); });
}

template <class Number>
void norm_backward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& inverse,
                   const at::Tensor& d_y, const at::Tensor& d_x) {
  const kernels::RmsNormBackward<Number> pass{.rows = inverse.numel(),
                                              .width = x.size(-1),
                                              .x = rows_of<Number>(x),
                                              .weight = rows_of<Number>(weight),
                                              .inverse = rows_of<float>(inverse),
                                              .d_y = rows_of<Number>(d_y),
                                              .d_x = rows_to<Number>(d_x)};
  over_rows(x, [&](std::int64_t begin, std::int64_t end) { rms_norm_backward(pass, begin, end); });
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double epsilon) {
    const at::Tensor y = at::empty_like(x),
                     inverse = at::empty({x.numel() / x.size(-1)}, x.options().dtype(at::kFloat));
    const auto run = x.scalar_type() == at::kBFloat16 ? norm_forward<Bfloat16> : norm_forward<float>;
    run(x, weight, static_cast<float>(epsilon), y, inverse);
    context->save_for_backward({x, weight, inverse});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], d_y = outputs[0].contiguous(), d_x = at::empty_like(x);
    const auto run = x.scalar_type() == at::kBFloat16 ? norm_backward<Bfloat16> : norm_backward<float>;
    run(x, saved[1], saved[2], d_y, d_x);
    return {d_x, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (!x.is_cpu() || weight.requires_grad()) return at::rms_norm(x, weight.sizes(), weight, epsilon);
  return RmsNormFunction::apply(x.contiguous(), weight, epsilon);
}

}  // namespace comigs::model
