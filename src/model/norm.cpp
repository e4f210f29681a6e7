#include "comigs/model/norm.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "comigs/kernels/bfloat16.hpp"
#include "comigs/kernels/norm.hpp"
#include "comigs/model/device.hpp"

namespace comigs::model {

namespace {

using kernels::Bfloat16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class Number>
Number* norm_data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<Number*>(tensor.mutable_data_ptr()) : nullptr;
}

kernels::NormShape norm_shape(const at::Tensor& x, const at::Tensor& reader, bool centred) {
  return {.rows = x.numel() / x.size(-1),
          .width = x.size(-1),
          .readers = reader.defined() ? reader.size(0) : 0,
          .centred = centred};
}

// visit(begin, end) for all rows of host memory, by all threads.
template <class Visit>
void over_rows(const kernels::NormShape& shape, const Visit& visit) {
  constexpr std::int64_t numbers_at_a_time = 1 << 14;
  at::parallel_for(0, shape.rows, std::max<std::int64_t>(numbers_at_a_time / shape.width, 1), visit);
}

struct Passed {
  at::Tensor sum, y, read, mean, inverse;
};

template <class Number>
void norm_forward_of(const Norm& norm, const at::Tensor& x, const at::Tensor& added, const at::Tensor& reader,
                     const Passed& to) {
  const kernels::NormForward<Number> pass{
      .shape = norm_shape(x, reader, norm.kind == Norm::Kind::layer),
      .epsilon = static_cast<float>(norm.epsilon),
      .x = norm_data<Number>(x),
      .added = norm_data<Number>(added),
      .weight = norm_data<Number>(norm.weight),
      .bias = norm_data<Number>(norm.bias),
      .reader = norm_data<float>(reader),
      .sum = added.defined() ? norm_data<Number>(to.sum) : nullptr,
      .y = norm_data<Number>(to.y),
      .mean = norm_data<float>(to.mean),
      .inverse = norm_data<float>(to.inverse),
      .read = norm_data<float>(to.read),
  };
  if (x.is_cuda())
    kernels::norm_forward_device(pass, current_stream(x.device()));
  else
    over_rows(pass.shape,
              [&](std::int64_t begin, std::int64_t end) { kernels::norm_forward(pass, begin, end); });
}

// `added` and `reader` may be undefined.
Passed forward_pass(const Norm& norm, const at::Tensor& x, const at::Tensor& added,
                    const at::Tensor& reader) {
  const std::int64_t rows = x.numel() / x.size(-1);
  const auto floats = x.options().dtype(at::kFloat);
  const Passed to{.sum = added.defined() ? at::empty_like(x) : x,
                  .y = at::empty_like(x),
                  .read = reader.defined() ? at::empty({rows, reader.size(0)}, floats) : at::Tensor(),
                  .mean = norm.kind == Norm::Kind::layer ? at::empty({rows}, floats) : at::Tensor(),
                  .inverse = at::empty({rows}, floats)};
  const auto run = x.scalar_type() == at::kBFloat16 ? norm_forward_of<Bfloat16> : norm_forward_of<float>;
  run(norm, x, added, reader, to);
  return to;
}

// Of the forward pass, in the order in which they are kept.
struct Kept {
  at::Tensor sum, weight, mean, inverse, reader, y;  // y where the reader is tracked
};

template <class Number>
void norm_backward_of(const Kept& kept, const at::Tensor& d_y, const at::Tensor& d_read,
                      const at::Tensor& d_sum, const at::Tensor& d_x) {
  const kernels::NormBackward<Number> pass{
      .shape = norm_shape(kept.sum, d_read.defined() ? kept.reader : at::Tensor(), kept.mean.defined()),
      .sum = norm_data<Number>(kept.sum),
      .weight = norm_data<Number>(kept.weight),
      .reader = norm_data<float>(kept.reader),
      .mean = norm_data<float>(kept.mean),
      .inverse = norm_data<float>(kept.inverse),
      .d_y = norm_data<Number>(d_y),
      .d_read = norm_data<float>(d_read),
      .d_sum = norm_data<Number>(d_sum),
      .d_x = norm_data<Number>(d_x),
  };
  if (d_x.is_cuda())
    kernels::norm_backward_device(pass, current_stream(d_x.device()));
  else
    over_rows(pass.shape,
              [&](std::int64_t begin, std::int64_t end) { kernels::norm_backward(pass, begin, end); });
}

at::Tensor contiguous(const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; }

class NormFunction : public torch::autograd::Function<NormFunction> {
 public:
  // y, then what was read, where there is a reader, then the sum, where something was added.
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const std::optional<at::Tensor>& added,
                               const std::optional<at::Tensor>& reader, const Norm& norm) {
    const at::Tensor by = contiguous(reader.value_or(at::Tensor()));
    const Passed passed = forward_pass(norm, x, contiguous(added.value_or(at::Tensor())), by);
    context->save_for_backward({passed.sum, norm.weight, passed.mean, passed.inverse, by,
                                reader && reader->requires_grad() ? passed.y : at::Tensor()});
    context->saved_data["added"] = added.has_value();
    context->set_materialize_grads(false);
    variable_list outputs{passed.y};
    if (reader) outputs.push_back(passed.read);
    if (added) outputs.push_back(passed.sum);
    // Where the reader alone is tracked nobody need make gradients of the stream.
    if (!x.requires_grad() && !(added && added->requires_grad()))
      context->mark_non_differentiable({passed.y, added ? passed.sum : passed.y});
    return outputs;
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const Kept kept{saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]};
    const bool read = kept.reader.defined(), added = context->saved_data["added"].toBool();
    const at::Tensor d_read = read ? contiguous(outputs[1]) : at::Tensor(),
                     d_sum = added ? contiguous(outputs.back()) : at::Tensor();
    at::Tensor d_y = contiguous(outputs[0]), d_x = d_sum, d_reader;
    const bool needed = context->needs_input_grad(0) || (added && context->needs_input_grad(1));
    if (needed && (d_y.defined() || d_read.defined())) {
      if (!d_y.defined()) d_y = at::zeros_like(kept.sum);
      d_x = at::empty_like(kept.sum);
      const auto run =
          d_x.scalar_type() == at::kBFloat16 ? norm_backward_of<Bfloat16> : norm_backward_of<float>;
      run(kept, d_y, d_read, d_sum, d_x);
    }
    if (d_read.defined() && kept.y.defined()) d_reader = d_read.t().mm(kept.y.to(at::kFloat));
    return {d_x, added ? d_x : at::Tensor(), d_reader, at::Tensor()};
  }
};

bool has_kernels(const Norm& norm, const at::Tensor& x) {
  const auto type = x.scalar_type();
  return (type == at::kFloat || type == at::kBFloat16) && !norm.weight.requires_grad() &&
         !(norm.bias.defined() && norm.bias.requires_grad());
}

at::Tensor by_libtorch(const Norm& norm, const at::Tensor& x) {
  if (norm.kind == Norm::Kind::layer)
    return at::layer_norm(x, norm.weight.sizes(), norm.weight, norm.bias, norm.epsilon);
  return at::rms_norm(x, norm.weight.sizes(), norm.weight, norm.epsilon);
}

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace

at::Tensor ResidualStream::whole() const { return waiting.defined() ? x + waiting : x; }

Normed norm(const Norm& norm, ResidualStream& stream, const at::Tensor& reader) {
  if (!has_kernels(norm, stream.x)) {
    stream = {.x = stream.whole(), .waiting = {}};
    const at::Tensor y = by_libtorch(norm, stream.x);
    return {.x = y, .read = reader.defined() ? at::linear(y.to(at::kFloat), reader) : at::Tensor()};
  }
  const variable_list outputs =
      NormFunction::apply(stream.x.contiguous(), if_defined(stream.waiting), if_defined(reader), norm);
  if (stream.waiting.defined()) stream = {.x = outputs.back(), .waiting = {}};
  return {.x = outputs[0], .read = reader.defined() ? outputs[1] : at::Tensor()};
}

at::Tensor norm(const Norm& norm, const at::Tensor& x) {
  ResidualStream stream{.x = x, .waiting = {}};
  return model::norm(norm, stream).x;
}

}  // namespace comigs::model
