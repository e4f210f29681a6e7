#include "comigs/model/cross_entropy.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "comigs/kernels/cross_entropy.hpp"
#include "comigs/model/cross_entropy_chunk.hpp"
#include "comigs/model/device.hpp"

namespace comigs::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Gradients {
  at::Tensor hidden, head;  // undefined: not wanted
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
  const at::Tensor buffer = at::empty({chunk, logit_stride(vocabulary)}, hidden.options());
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t count = std::min(chunk, tokens - begin);
    const at::Tensor part = hidden.narrow(0, begin, count);
    at::Tensor logits = buffer.narrow(0, 0, count).narrow(1, 0, vocabulary);
    at::mm_out(logits, part, head.t());
    const auto visit = hidden.scalar_type() == at::kBFloat16 ? rows<kernels::Bfloat16> : rows<float>;
    visit(logits, target.narrow(0, begin, count), losses.narrow(0, begin, count), gradients.wanted());
    if (gradients.hidden.defined()) {
      at::Tensor d_hidden = gradients.hidden.narrow(0, begin, count);
      at::mm_out(d_hidden, logits, head);
    }
    if (gradients.head.defined()) gradients.head.addmm_(logits.t(), part);
  }
  return losses;
}

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets) {
    const Gradients gradients{.hidden = hidden.requires_grad() ? at::empty_like(hidden) : at::Tensor(),
                              .head = head.requires_grad() ? at::zeros_like(head) : at::Tensor()};
    const at::Tensor count = targets.ge(0).sum(at::kDouble).clamp_min(1);
    const at::Tensor sum = run(hidden, head, targets, gradients).sum(at::kDouble);
    context->save_for_backward({gradients.hidden, gradients.head, count});
    return (sum / count).to(at::kFloat);
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    // Of one dimension, so that bfloat16 times it is worked out in float32: a number without any would be
    // rounded to bfloat16 first, and all gradients be off alike.
    const at::Tensor factor = (outputs[0] / saved[2]).to(at::kFloat).view(1);
    const auto scaled = [&](const at::Tensor& gradient) {
      if (!gradient.defined()) return gradient;
      at::Tensor product = at::empty_like(gradient);
      return at::mul_out(product, gradient, factor);
    };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor()};
  }
};

}  // namespace

at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets) {
  return CrossEntropyFunction::apply(hidden, head, targets);
}

at::Tensor cross_entropy_of_tokens(const at::Tensor& hidden, const at::Tensor& head,
                                   const at::Tensor& targets) {
  const at::NoGradGuard no_gradients;
  return run(hidden, head, targets, {});
}

}  // namespace comigs::model
