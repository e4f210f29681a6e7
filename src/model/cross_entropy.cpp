#include "comigs/model/cross_entropy.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "comigs/kernels/cross_entropy.hpp"
#include "comigs/model/cross_entropy_chunk.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/products.hpp"

namespace comigs::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Gradients {
  at::Tensor hidden, head;  // undefined: not wanted
  double factor = 1.0;      // of both
  [[nodiscard]] bool wanted() const { return hidden.defined() || head.defined(); }
};

// The loss of each row, and in place the gradient of the logits.
template <class Number>
void rows(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& losses, bool gradient) {
  const kernels::LogitRows<Number> part{.tokens = logits.size(0),
                                        .vocabulary = logits.size(1),
                                        .stride = logits.stride(0),
                                        .logits = static_cast<Number*>(logits.mutable_data_ptr()),
                                        .targets = targets.const_data_ptr<std::int64_t>(),
                                        .losses = losses.mutable_data_ptr<float>(),
                                        .gradient = gradient};
  if (logits.is_cuda()) return cross_entropy_rows_device(part, current_stream(logits.device()));
  at::parallel_for(0, part.tokens, 1, [&](std::int64_t begin, std::int64_t end) {
    kernels::cross_entropy_rows(part, begin, end);
  });
}

// The loss of each token, 0 without a target; fills the gradients of their sum which are defined.
at::Tensor run(const at::Tensor& hidden, const at::Tensor& stored_head, const at::Tensor& targets,
               const Gradients& gradients) {
  const std::int64_t tokens = hidden.size(0), vocabulary = stored_head.size(0),
                     chunk = tokens_of_chunk(tokens, vocabulary, hidden.is_cuda());
  const at::Tensor head = stored_head.to(hidden.scalar_type()), target = targets.contiguous();
  const at::Tensor losses = at::empty({tokens}, hidden.options().dtype(at::kFloat));
  at::Tensor buffer;
  const auto room = [&](std::int64_t count) {
    if (!buffer.defined()) buffer = at::empty({chunk, logit_stride(vocabulary)}, hidden.options());
    return buffer.narrow(0, 0, count).narrow(1, 0, vocabulary);
  };
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t count = std::min(chunk, tokens - begin);
    const at::Tensor part = hidden.narrow(0, begin, count),
                     logits = product_in([&] { return room(count); }, part, head.t());
    const auto visit = hidden.scalar_type() == at::kBFloat16 ? rows<kernels::Bfloat16> : rows<float>;
    visit(logits, target.narrow(0, begin, count), losses.narrow(0, begin, count), gradients.wanted());
    if (gradients.hidden.defined()) {
      at::Tensor d_hidden = gradients.hidden.narrow(0, begin, count);
      if (gradients.factor == 1.0)
        product_to(d_hidden, logits, head);
      else
        at::addmm_out(d_hidden, d_hidden, logits, head, 0.0, gradients.factor);
    }
    if (gradients.head.defined()) gradients.head.addmm_(logits.t(), part, 1.0, gradients.factor);
  }
  return losses;
}

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets, const std::optional<at::Tensor>& weight) {
    const at::Tensor count = targets.ge(0).sum(at::kDouble).clamp_min(1);
    at::Tensor factor = (weight ? *weight / count : count.reciprocal()).to(at::kFloat).view(1);
    Gradients gradients{.hidden = hidden.requires_grad() ? at::empty_like(hidden) : at::Tensor(),
                        .head = head.requires_grad() ? at::zeros_like(head) : at::Tensor()};
    // Before sums are rounded to bfloat16: numbers of 8 bits times one factor, such as 1/255, can all be
    // rounded to the same side, and are then 0.2 % off together. On a GPU the host doesn't know it.
    if (hidden.scalar_type() == at::kBFloat16 && hidden.is_cpu()) {
      gradients.factor = *factor.const_data_ptr<float>();
      factor = at::Tensor();
    }
    const at::Tensor sum = run(hidden, head, targets, gradients).sum(at::kDouble);
    context->save_for_backward({gradients.hidden, gradients.head, factor});
    const at::Tensor mean = (sum / count).to(at::kFloat);
    return weight ? mean * *weight : mean;
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    // Of one dimension, so that bfloat16 times it is worked out in float32.
    const at::Tensor factor = saved[2].defined() ? outputs[0] * saved[2] : outputs[0].view(1);
    const auto scaled = [&](const at::Tensor& gradient) {
      if (!gradient.defined()) return gradient;
      at::Tensor product = at::empty_like(gradient);
      return at::mul_out(product, gradient, factor);
    };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                         const at::Tensor& weight) {
  return CrossEntropyFunction::apply(hidden, head, targets,
                                     weight.defined() ? std::optional(weight) : std::nullopt);
}

at::Tensor cross_entropy_of_tokens(const at::Tensor& hidden, const at::Tensor& head,
                                   const at::Tensor& targets) {
  const at::NoGradGuard no_gradients;
  return run(hidden, head, targets, {});
}

}  // namespace comigs::model
