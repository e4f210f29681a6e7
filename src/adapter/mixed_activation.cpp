#include "mixed_activation.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "comigs/kernels/mixture.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

namespace {

// An expert at a time, with ATen: any precision
// ---------------------------------------------------

at::Tensor gate_column(const at::Tensor& gate, std::int64_t expert, at::ScalarType dtype) {
  return gate.narrow(1, expert, 1).to(dtype);
}

// What an expert's activation is of: [n, F] of each up projection.
std::vector<at::Tensor> before_activation(const ActivationInputs& in, std::int64_t expert) {
  const std::int64_t tokens = in.gate.size(0), experts = in.down_A.size(0), rank = in.down_A.size(1);
  std::vector<at::Tensor> before;
  for (std::int64_t s = 0; s < in.up_B.size(0) / experts; ++s) {
    const std::int64_t slot = s * experts + expert;
    before.push_back(at::addmm(in.hidden.narrow(0, s * tokens, tokens),
                               in.reduced.narrow(1, slot * rank, rank), in.up_B[slot]));
  }
  return before;
}

// Their gradients, from the activation's.
std::vector<at::Tensor> activate_backward(model::Activation activation, const at::Tensor& d,
                                          const std::vector<at::Tensor>& before) {
  if (activation == model::Activation::silu_gated)
    return {at::silu_backward(d * before[1], before[0]), d * at::silu(before[0])};
  return {at::gelu_backward(d, before[0], model::gelu_approximation)};
}

MixedActivation one_by_one(const ActivationInputs& in) {
  const std::int64_t experts = in.down_A.size(0), rank = in.down_A.size(1);
  MixedActivation out{.mixed = {},
                      .weighted = at::empty({in.gate.size(0), experts * rank}, in.reduced.options())};
  for (std::int64_t e = 0; e < experts; ++e) {
    at::Tensor activation = model::activate(in.activation, before_activation(in, e));
    activation.mul_(gate_column(in.gate, e, in.hidden.scalar_type()));
    out.weighted.narrow(1, e * rank, rank).copy_(activation.mm(in.down_A[e].t()));
    out.mixed = out.mixed.defined() ? out.mixed.add_(activation) : activation;
  }
  return out;
}

ActivationGradients one_by_one_backward(const ActivationInputs& in, const at::Tensor& d_mixed,
                                        const at::Tensor& d_weighted, const WantedGradients& wanted) {
  const std::int64_t experts = in.down_A.size(0), rank = in.down_A.size(1);
  ActivationGradients out{.hidden = at::zeros_like(in.hidden),
                          .reduced = at::empty_like(in.reduced),
                          .gate = wanted.gate ? at::empty_like(in.gate) : at::Tensor(),
                          .up_B = wanted.up_B ? at::empty_like(in.up_B) : at::Tensor(),
                          .down_A = wanted.down_A ? at::empty_like(in.down_A) : at::Tensor()};
  for (std::int64_t e = 0; e < experts; ++e) {
    const at::Tensor share = gate_column(in.gate, e, in.hidden.scalar_type());
    const at::Tensor d_w = d_weighted.narrow(1, e * rank, rank);
    const std::vector<at::Tensor> before = before_activation(in, e);
    const at::Tensor activation = model::activate(in.activation, before);
    // The gradient of the activation before the gate's share; its inner product with the activation is the
    // gate's, summed in float32.
    at::Tensor d_activation = at::addmm(d_mixed, d_w, in.down_A[e]);
    if (wanted.gate) out.gate.select(1, e).copy_((d_activation * activation).sum(-1, false, at::kFloat));
    if (wanted.down_A) out.down_A[e].copy_((d_w * share).t().mm(activation));
    const std::vector<at::Tensor> d_before =
        activate_backward(in.activation, d_activation.mul_(share), before);
    for (std::size_t s = 0; s < before.size(); ++s) {
      const std::int64_t site = static_cast<std::int64_t>(s), slot = site * experts + e;
      const at::Tensor u = in.reduced.narrow(1, slot * rank, rank);
      if (wanted.up_B) out.up_B[slot].copy_(u.t().mm(d_before[s]));
      out.reduced.narrow(1, slot * rank, rank).copy_(d_before[s].mm(in.up_B[slot].t()));
      out.hidden.narrow(0, site * in.gate.size(0), in.gate.size(0)).add_(d_before[s]);
    }
  }
  return out;
}

// Fused, float32 and bfloat16, in host and device memory
// --------------------------------------------------------------------------------------

template <class Number>
Number* data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<Number*>(tensor.mutable_data_ptr()) : nullptr;
}

// The operands as the kernels read them.
struct Operands {
  explicit Operands(const ActivationInputs& in)
      : activation(in.activation),
        reduced(in.reduced.to(at::kFloat).contiguous()),
        gate(in.gate.contiguous()),
        up_B(model::in_precision(in.up_B, at::kFloat).contiguous()),
        down_A(model::in_precision(in.down_A, at::kFloat).contiguous()),
        hidden(in.hidden.contiguous()) {}

  template <class Number>
  [[nodiscard]] kernels::MixtureInputs<Number> inputs() const {
    return {.shape = {.tokens = gate.size(0),
                      .inner = hidden.size(1),
                      .experts = down_A.size(0),
                      .rank = down_A.size(1),
                      .activation = activation},
            .hidden = data<Number>(hidden),
            .reduced = data<float>(reduced),
            .gate = data<float>(gate),
            .up_B = data<float>(up_B),
            .down_A = data<float>(down_A)};
  }

  model::Activation activation;
  at::Tensor reduced, gate, up_B, down_A, hidden;
};

at::Tensor bytes_beside(const at::Tensor& tensor, std::size_t count) {
  return at::empty({static_cast<std::int64_t>(count)}, tensor.options().dtype(at::kByte));
}

template <class Number>
MixedActivation fused(const ActivationInputs& in) {
  constexpr std::int64_t least_tokens = 16;
  const Operands operands(in);
  const std::int64_t tokens = in.gate.size(0), coefficients = in.down_A.size(0) * in.down_A.size(1);
  const MixedActivation out{.mixed = at::empty({tokens, in.hidden.size(1)}, operands.hidden.options()),
                            .weighted = at::empty({tokens, coefficients}, operands.reduced.options())};
  const kernels::MixtureInputs<Number> inputs = operands.inputs<Number>();
  const kernels::MixtureOutputs<Number> outputs{.mixed = data<Number>(out.mixed),
                                                .weighted = data<float>(out.weighted)};
  if (in.hidden.is_cuda()) {
    const at::Tensor workspace = bytes_beside(in.hidden, kernels::mixture_forward_workspace(inputs.shape));
    kernels::mixture_forward_device(inputs, outputs, workspace.mutable_data_ptr(),
                                    model::current_stream(in.hidden.device()));
  } else {
    at::parallel_for(0, inputs.shape.tokens, least_tokens, [&](std::int64_t begin, std::int64_t end) {
      kernels::mixture_forward(inputs, outputs, begin, end);
    });
  }
  return {.mixed = out.mixed, .weighted = out.weighted.to(in.reduced.scalar_type())};
}

template <class Number>
ActivationGradients fused_backward(const ActivationInputs& in, const at::Tensor& d_mixed,
                                   const at::Tensor& d_weighted, const WantedGradients& wanted) {
  constexpr std::int64_t columns_together = 64;  // a cache line of bfloat16 and more: parts share none
  const Operands operands(in);
  const at::Tensor from_mixed = d_mixed.contiguous(), from_weighted = d_weighted.to(at::kFloat).contiguous();
  const std::int64_t columns = in.hidden.size(1),
                     blocks = (columns + columns_together - 1) / columns_together;
  // Threads of the host share the columns, and each has sums of its own.
  const std::int64_t parts =
      in.hidden.is_cuda()
          ? 1
          : std::clamp<std::int64_t>(at::get_num_threads(), 1, std::max<std::int64_t>(blocks, 1));
  const auto sums = [&](const at::Tensor& like) {
    return at::empty({parts, like.size(0), like.size(1)}, like.options().dtype(at::kFloat));
  };
  const at::Tensor reduced = sums(operands.reduced), gate = wanted.gate ? sums(in.gate) : at::Tensor();
  const at::Tensor hidden = at::empty_like(operands.hidden);
  const at::Tensor up_B = wanted.up_B ? at::empty_like(operands.up_B) : at::Tensor();
  const at::Tensor down_A = wanted.down_A ? at::empty_like(operands.down_A) : at::Tensor();
  const kernels::MixtureInputs<Number> inputs = operands.inputs<Number>();
  const auto gradients_of = [&](std::int64_t part) {
    return kernels::MixtureGradients<Number>{
        .d_mixed = data<Number>(from_mixed),
        .d_weighted = data<float>(from_weighted),
        .d_hidden = data<Number>(hidden),
        .d_reduced = data<float>(reduced) + part * operands.reduced.numel(),
        .d_gate = wanted.gate ? data<float>(gate) + part * in.gate.numel() : nullptr,
        .d_up_B = data<float>(up_B),
        .d_down_A = data<float>(down_A)};
  };
  if (in.hidden.is_cuda()) {
    const at::Tensor workspace = bytes_beside(in.hidden, kernels::mixture_backward_workspace(inputs.shape));
    kernels::mixture_backward_device(inputs, gradients_of(0), workspace.mutable_data_ptr(),
                                     model::current_stream(in.hidden.device()));
  } else {
    at::parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t part = first; part < last; ++part)
        kernels::mixture_backward(inputs, gradients_of(part),
                                  std::min(blocks * part / parts * columns_together, columns),
                                  std::min(blocks * (part + 1) / parts * columns_together, columns));
    });
  }
  const auto dtype = in.hidden.scalar_type();
  return {.hidden = hidden,
          .reduced = (parts == 1 ? reduced[0] : reduced.sum(0)).to(dtype),
          .gate = !wanted.gate ? at::Tensor()
                  : parts == 1 ? gate[0]
                               : gate.sum(0),
          .up_B = up_B,
          .down_A = down_A};
}

}  // namespace

MixedActivation mix_activations(const ActivationInputs& in) {
  if (in.hidden.scalar_type() == at::kFloat) return fused<float>(in);
  if (in.hidden.scalar_type() == at::kBFloat16) return fused<kernels::Bfloat16>(in);
  return one_by_one(in);
}

ActivationGradients mix_activations_backward(const ActivationInputs& in, const at::Tensor& d_mixed,
                                             const at::Tensor& d_weighted, const WantedGradients& wanted) {
  if (in.hidden.scalar_type() == at::kFloat) return fused_backward<float>(in, d_mixed, d_weighted, wanted);
  if (in.hidden.scalar_type() == at::kBFloat16)
    return fused_backward<kernels::Bfloat16>(in, d_mixed, d_weighted, wanted);
  return one_by_one_backward(in, d_mixed, d_weighted, wanted);
}

}  // namespace comigs::adapter
