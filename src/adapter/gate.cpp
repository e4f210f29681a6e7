#include "gate.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comigs/kernels/gate.hpp"
#include "comigs/model/device.hpp"

namespace comigs::adapter {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t least_tokens = 4096;  // fewer are done before another thread is awake

kernels::GateShape shape_of(const at::Tensor& gate, std::int64_t active) {
  return {.tokens = gate.size(0), .experts = gate.size(1), .active = active};
}

class GateFunction : public torch::autograd::Function<GateFunction> {
 public:
  // gate [n, E], probability [E], load [E], chosen [n, E], probabilities [n, E]
  static variable_list forward(AutogradContext* context, const at::Tensor& router_logits,
                               std::int64_t active) {
    const at::Tensor logits = router_logits.contiguous(), probabilities = at::empty_like(logits),
                     gate = at::empty_like(logits), chosen = at::empty_like(logits, at::kBool);
    const at::Tensor share = at::empty({logits.size(1)}, logits.options()),
                     probability = at::empty_like(share);
    const kernels::GateForward pass{.shape = shape_of(logits, active),
                                    .logits = logits.const_data_ptr<float>(),
                                    .probabilities = probabilities.mutable_data_ptr<float>(),
                                    .gate = gate.mutable_data_ptr<float>(),
                                    .chosen = static_cast<std::uint8_t*>(chosen.mutable_data_ptr())};
    const kernels::GateLoad load{.chosen = share.mutable_data_ptr<float>(),
                                 .probabilities = probability.mutable_data_ptr<float>()};
    if (logits.is_cuda()) {
      kernels::gate_forward_device(pass, model::current_stream(logits.device()));
      kernels::gate_load_device(pass, load, model::current_stream(logits.device()));
    } else {
      at::parallel_for(0, pass.shape.tokens, least_tokens, [&](std::int64_t begin, std::int64_t end) {
        kernels::gate_forward(pass, begin, end);
      });
      kernels::gate_load(pass, load);
    }
    context->save_for_backward({probabilities, gate});
    context->saved_data["active"] = active;
    context->mark_non_differentiable({share, chosen, probabilities});
    context->set_materialize_grads(false);
    return {gate, probability, share, chosen, probabilities};
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &probabilities = saved[0], &gate = saved[1];
    const at::Tensor d_gate = outputs[0].defined() ? outputs[0].contiguous() : at::Tensor();
    const at::Tensor d_probability = outputs[1].defined() ? outputs[1].contiguous() : at::Tensor();
    const at::Tensor d_logits = at::empty_like(gate);
    const auto pointer = [](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
    };
    const kernels::GateBackward pass{.shape = shape_of(gate, context->saved_data["active"].toInt()),
                                     .probabilities = pointer(probabilities),
                                     .gate = pointer(gate),
                                     .d_gate = pointer(d_gate),
                                     .d_probabilities = pointer(d_probability),
                                     .d_logits = d_logits.mutable_data_ptr<float>()};
    if (gate.is_cuda()) {
      kernels::gate_backward_device(pass, model::current_stream(gate.device()));
    } else {
      at::parallel_for(0, pass.shape.tokens, least_tokens, [&](std::int64_t begin, std::int64_t end) {
        kernels::gate_backward(pass, begin, end);
      });
    }
    return {d_logits, at::Tensor()};
  }
};

}  // namespace

LayerRouting top_k_gate(const at::Tensor& logits, std::int64_t active) {
  const variable_list outputs = GateFunction::apply(logits, active);
  return {.logits = logits,
          .gate = outputs[0],
          .distribution = active == 1 ? outputs[4] : outputs[0],
          .chosen = outputs[3],
          .load = outputs[2],
          .probability = outputs[1]};
}

}  // namespace comigs::adapter
