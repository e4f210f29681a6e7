#include "comigs/model/cross_entropy.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace comigs::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Logits of one chunk: small enough to stay in the last-level cache, large enough for the matrix product to
// run at speed.
constexpr std::int64_t chunk_elements = std::int64_t{1} << 19;

struct Gradients {
  at::Tensor hidden, head;  // undefined: not wanted
};

// Turns logits [c, V] float32 into d loss_sum / d logits in place: softmax minus one at the target, zero
// without target.
at::Tensor logit_gradient(at::Tensor logits, const at::Tensor& normaliser, const at::Tensor& safe,
                          const at::Tensor& mask) {
  logits.sub_(normaliser.unsqueeze(1)).exp_();
  logits.scatter_add_(1, safe.unsqueeze(1), at::full({safe.size(0), 1}, -1.0, logits.options()));
  return logits.mul_(mask.unsqueeze(1));
}

// Sum of the loss over tokens with a target, float64; fills the gradients of that sum which are defined.
at::Tensor run(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
               const Gradients& gradients) {
  const std::int64_t tokens = hidden.size(0),
                     step = std::max<std::int64_t>(64, chunk_elements / head.size(0));
  at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
  const at::Tensor head_t = head.t();
  for (std::int64_t begin = 0; begin < tokens; begin += step) {
    const std::int64_t count = std::min(step, tokens - begin);
    const at::Tensor part = hidden.narrow(0, begin, count), target = targets.narrow(0, begin, count);
    const at::Tensor mask = target.ge(0).to(at::kFloat), safe = target.clamp_min(0);
    at::Tensor logits = part.mm(head_t).to(at::kFloat);
    const at::Tensor normaliser = logits.logsumexp(-1);
    const at::Tensor loss = normaliser - logits.gather(1, safe.unsqueeze(1)).squeeze(1);
    sum.add_((loss * mask).sum(at::kDouble));
    if (!gradients.hidden.defined() && !gradients.head.defined()) continue;
    const at::Tensor d_logits =
        logit_gradient(std::move(logits), normaliser, safe, mask).to(hidden.scalar_type());
    if (gradients.hidden.defined()) gradients.hidden.narrow(0, begin, count).copy_(d_logits.mm(head));
    if (gradients.head.defined()) gradients.head.addmm_(d_logits.t(), part);
  }
  return sum;
}

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets) {
    const Gradients gradients{.hidden = hidden.requires_grad() ? at::empty_like(hidden) : at::Tensor(),
                              .head = head.requires_grad() ? at::zeros_like(head) : at::Tensor()};
    const at::Tensor count = targets.ge(0).sum(at::kDouble).clamp_min(1);
    const at::Tensor sum = run(hidden, head, targets, gradients);
    context->save_for_backward({gradients.hidden, gradients.head, count});
    return (sum / count).to(at::kFloat);
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor factor = (outputs[0] / saved[2]).to(at::kFloat);
    const auto scaled = [&](const at::Tensor& gradient) {
      return gradient.defined() ? gradient * factor.to(gradient.scalar_type()) : gradient;
    };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor()};
  }
};

}  // namespace

at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets) {
  return CrossEntropyFunction::apply(hidden, head, targets);
}

at::Tensor cross_entropy_sum(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets) {
  return run(hidden, head, targets, {});
}

}  // namespace comigs::model
