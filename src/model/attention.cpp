#include "comigs/model/attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "comigs/kernels/attention.hpp"
#include "comigs/kernels/bfloat16.hpp"

namespace comigs::model {

namespace {

using kernels::Bfloat16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// [B, heads, T, d]: any strides but that of a row.
template <class Number>
kernels::HeadRows<Number> head_rows(const at::Tensor& tensor) {
  return {.numbers = static_cast<Number*>(tensor.mutable_data_ptr()),
          .sequence = tensor.stride(0),
          .head = tensor.stride(1),
          .token = tensor.stride(2)};
}
template <class Number>
kernels::HeadRows<const Number> const_head_rows(const at::Tensor& tensor) {
  return {.numbers = static_cast<const Number*>(tensor.const_data_ptr()),
          .sequence = tensor.stride(0),
          .head = tensor.stride(1),
          .token = tensor.stride(2)};
}

at::Tensor with_whole_rows(const at::Tensor& tensor) {
  return tensor.stride(3) == 1 ? tensor : tensor.contiguous();
}

// As the layer reads on: [B, heads, T, d] in memory of [B, T, heads, d].
at::Tensor empty_by_token(const at::Tensor& like) {
  return at::empty({like.size(0), like.size(2), like.size(1), like.size(3)}, like.options()).transpose(1, 2);
}

kernels::AttentionShape shape_of(const at::Tensor& queries, const at::Tensor& keys, double scale) {
  return {.sequences = queries.size(0),
          .heads = queries.size(1),
          .key_value_heads = keys.size(1),
          .tokens = queries.size(2),
          .keys = keys.size(2),
          .head_size = queries.size(3),
          .scale = static_cast<float>(scale)};
}

template <class Number>
void run_forward(const kernels::AttentionShape& shape, const variable_list& in, const at::Tensor& mixed,
                 const at::Tensor& log_sum) {
  const kernels::AttentionForward<Number> pass{
      .shape = shape,
      .queries = const_head_rows<Number>(in[0]),
      .keys = const_head_rows<Number>(in[1]),
      .values = const_head_rows<Number>(in[2]),
      .mixed = head_rows<Number>(mixed),
      .log_sum = log_sum.defined() ? log_sum.mutable_data_ptr<float>() : nullptr};
  at::parallel_for(0, shape.sequences * shape.heads, 1, [&](std::int64_t begin, std::int64_t end) {
    kernels::attention_forward(pass, begin, end);
  });
}

template <class Number>
void run_backward(const kernels::AttentionShape& shape, const variable_list& saved, const at::Tensor& d_mixed,
                  const variable_list& gradients) {
  const kernels::AttentionBackward<Number> pass{.shape = shape,
                                                .queries = const_head_rows<Number>(saved[0]),
                                                .keys = const_head_rows<Number>(saved[1]),
                                                .values = const_head_rows<Number>(saved[2]),
                                                .d_mixed = const_head_rows<Number>(d_mixed),
                                                .log_sum = saved[3].const_data_ptr<float>(),
                                                .d_queries = head_rows<Number>(gradients[0]),
                                                .d_keys = head_rows<Number>(gradients[1]),
                                                .d_values = head_rows<Number>(gradients[2])};
  at::parallel_for(0, shape.sequences * shape.key_value_heads, 1, [&](std::int64_t begin, std::int64_t end) {
    kernels::attention_backward(pass, begin, end);
  });
}

// `log_sum`: undefined where no backward pass follows.
at::Tensor mixed_by(const variable_list& in, double scale, const at::Tensor& log_sum) {
  const at::Tensor mixed = empty_by_token(in[0]);
  const auto run = in[0].scalar_type() == at::kBFloat16 ? run_forward<Bfloat16> : run_forward<float>;
  run(shape_of(in[0], in[1], scale), in, mixed, log_sum);
  return mixed;
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& queries, const at::Tensor& keys,
                            const at::Tensor& values, double scale) {
    const variable_list in = {with_whole_rows(queries), with_whole_rows(keys), with_whole_rows(values)};
    const at::Tensor log_sum =
        at::empty({queries.size(0), queries.size(1), queries.size(2)}, queries.options().dtype(at::kFloat));
    const at::Tensor mixed = mixed_by(in, scale, log_sum);
    context->save_for_backward({in[0], in[1], in[2], log_sum});
    context->saved_data["scale"] = scale;
    return mixed;
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const variable_list gradients = {at::empty_like(saved[0]), at::empty_like(saved[1]),
                                     at::empty_like(saved[2])};
    const auto run = saved[0].scalar_type() == at::kBFloat16 ? run_backward<Bfloat16> : run_backward<float>;
    run(shape_of(saved[0], saved[1], context->saved_data["scale"].toDouble()), saved,
        with_whole_rows(outputs[0]), gradients);
    return {gradients[0], gradients[1], gradients[2], at::Tensor()};
  }
};

// LibTorch's, which has no form for queries that are the last of more keys but that with a mask.
at::Tensor of_libtorch(const Heads& heads, double scale) {
  const bool grouped = heads.keys.size(1) != heads.queries.size(1);
  const std::int64_t tokens = heads.queries.size(2), keys = heads.keys.size(2);
  std::optional<at::Tensor> mask;
  if (tokens > 1 && keys > tokens)
    mask = at::ones({tokens, keys}, heads.queries.options().dtype(at::kBool)).tril(keys - tokens);
  // A single query behind earlier keys sees them all.
  return at::scaled_dot_product_attention(heads.queries, heads.keys, heads.values, mask, 0.0,
                                          /*is_causal=*/keys == tokens, scale, grouped);
}

// What the kernels rely on.
void check(const Heads& heads) {
  const at::Tensor &queries = heads.queries, &keys = heads.keys;
  TORCH_CHECK(
      keys.scalar_type() == queries.scalar_type() && heads.values.scalar_type() == queries.scalar_type(),
      "attention of heads in several precisions");
  TORCH_CHECK(keys.sizes() == heads.values.sizes() && keys.size(0) == queries.size(0) &&
                  keys.size(2) >= queries.size(2) && keys.size(3) == queries.size(3) &&
                  queries.size(1) % keys.size(1) == 0,
              "attention of queries ", queries.sizes(), ", keys ", keys.sizes(), " and values ",
              heads.values.sizes());
}

}  // namespace

at::Tensor attention(const Heads& heads, std::optional<double> scale) {
  const at::Tensor& queries = heads.queries;
  const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(queries.size(3))));
  const bool has_kernels =
      queries.is_cpu() && (queries.scalar_type() == at::kFloat || queries.scalar_type() == at::kBFloat16);
  // For a single query the kernels' copies of all keys would cost as much as it does.
  if (!has_kernels || queries.size(2) == 1) return of_libtorch(heads, factor);
  check(heads);
  if (!at::GradMode::is_enabled())
    return mixed_by({with_whole_rows(queries), with_whole_rows(heads.keys), with_whole_rows(heads.values)},
                    factor, {});
  return AttentionFunction::apply(queries, heads.keys, heads.values, factor);
}

}  // namespace comigs::model
