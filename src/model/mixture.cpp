#include "comigs/model/mixture.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace comigs::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* approximation = "tanh";  // "gelu_new" of GPT-2

enum Input {
  in_x,
  in_gate,
  in_up,
  in_up_bias,
  in_down,
  in_down_bias,
  in_up_A,
  in_up_B,
  in_down_A,
  in_down_B,
  in_scale,
  inputs
};

// Column e of a [n, E] gate as [n, 1] in the precision of the activations.
at::Tensor gate_column(const at::Tensor& gate, std::int64_t expert, at::ScalarType dtype) {
  return gate.narrow(1, expert, 1).to(dtype);
}

// Row-wise inner product [n], summed in float32.
at::Tensor row_dot(const at::Tensor& a, const at::Tensor& b) { return (a * b).sum(-1, false, at::kFloat); }

class MixtureFunction : public torch::autograd::Function<MixtureFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gate,
                            const at::Tensor& up, const at::Tensor& up_bias, const at::Tensor& down,
                            const at::Tensor& down_bias, const at::Tensor& up_A, const at::Tensor& up_B,
                            const at::Tensor& down_A, const at::Tensor& down_B, double scale) {
    const std::int64_t experts = up_B.size(0), rank = up_B.size(2);
    const at::Tensor hidden = at::addmm(up_bias, x, up);    // [n, F]
    const at::Tensor reduced = x.mm(up_A.t()).mul_(scale);  // [n, E R]
    at::Tensor mixed;                                       // [n, F]
    const at::Tensor weighted = at::empty_like(reduced);    // [n, E R]: g_i a_i A'_i^T
    for (std::int64_t e = 0; e < experts; ++e) {
      const at::Tensor share = gate_column(gate, e, x.scalar_type());
      at::Tensor activation = at::addmm(hidden, reduced.narrow(1, e * rank, rank), up_B[e].t());
      at::gelu_(activation, approximation);
      activation.mul_(share);
      weighted.narrow(1, e * rank, rank).copy_(activation.mm(down_A[e].t()));
      mixed = mixed.defined() ? mixed.add_(activation) : activation;
    }
    at::Tensor y = at::addmm(down_bias, mixed, down);
    y.addmm_(weighted, down_B.t(), 1, scale);
    context->save_for_backward({x, gate, up, down, up_A, up_B, down_A, down_B, hidden, reduced, weighted});
    context->saved_data["scale"] = scale;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    Backward pass(context, outputs[0].contiguous());
    for (std::int64_t e = 0; e < pass.experts; ++e) pass.expert(e);
    return pass.finish();
  }

 private:
  // The backward pass, an expert at a time: d_ marks the gradient of the loss with respect to what follows.
  struct Backward {
    Backward(AutogradContext* context_, at::Tensor d_y_)
        : context(context_), saved(context->get_saved_variables()), d_y(std::move(d_y_)) {
      scale = context->saved_data["scale"].toDouble();
      experts = up_B().size(0);
      rank = up_B().size(2);
      d_mixed = d_y.mm(down().t());
      d_weighted = d_y.mm(down_B()).mul_(scale);
      d_gate = needs(in_gate) ? at::empty_like(gate()) : at::Tensor();
      d_reduced = at::empty_like(reduced());
      if (needs(in_up_B)) d_up_B = at::empty_like(up_B());
      if (needs(in_down_A)) d_down_A = at::empty_like(down_A());
    }

    void expert(std::int64_t e) {
      const at::Tensor share = gate_column(gate(), e, x().scalar_type());
      const at::Tensor u = reduced().narrow(1, e * rank, rank);
      const at::Tensor before = at::addmm(hidden(), u, up_B()[e].t());
      const at::Tensor activation = at::gelu(before, approximation);
      const at::Tensor d_w = d_weighted.narrow(1, e * rank, rank);
      // The gradient of the activation before the gate's share; its inner product with the activation is the
      // gate's.
      at::Tensor d_activation = at::addmm(d_mixed, d_w, down_A()[e]);
      if (d_gate.defined()) d_gate.select(1, e).copy_(row_dot(d_activation, activation));
      if (d_down_A.defined()) d_down_A[e].copy_((d_w * share).t().mm(activation));
      const at::Tensor d_before = at::gelu_backward(d_activation.mul_(share), before, approximation);
      if (d_up_B.defined()) d_up_B[e].copy_(d_before.t().mm(u));
      d_reduced.narrow(1, e * rank, rank).copy_(d_before.mm(up_B()[e]));
      d_hidden = d_hidden.defined() ? d_hidden.add_(d_before) : d_before;
    }

    variable_list finish() {
      variable_list gradients(inputs);
      d_reduced.mul_(scale);
      if (needs(in_x)) gradients[in_x] = d_hidden.mm(up().t()).addmm_(d_reduced, up_A());
      gradients[in_gate] = d_gate;
      if (needs(in_up_A)) gradients[in_up_A] = d_reduced.t().mm(x());
      gradients[in_up_B] = d_up_B;
      gradients[in_down_A] = d_down_A;
      if (needs(in_down_B)) gradients[in_down_B] = d_y.t().mm(weighted()).mul_(scale);
      return gradients;
    }

    [[nodiscard]] bool needs(Input input) const { return context->needs_input_grad(input); }
    [[nodiscard]] const at::Tensor& x() const { return saved[0]; }
    [[nodiscard]] const at::Tensor& gate() const { return saved[1]; }
    [[nodiscard]] const at::Tensor& up() const { return saved[2]; }
    [[nodiscard]] const at::Tensor& down() const { return saved[3]; }
    [[nodiscard]] const at::Tensor& up_A() const { return saved[4]; }
    [[nodiscard]] const at::Tensor& up_B() const { return saved[5]; }
    [[nodiscard]] const at::Tensor& down_A() const { return saved[6]; }
    [[nodiscard]] const at::Tensor& down_B() const { return saved[7]; }
    [[nodiscard]] const at::Tensor& hidden() const { return saved[8]; }
    [[nodiscard]] const at::Tensor& reduced() const { return saved[9]; }
    [[nodiscard]] const at::Tensor& weighted() const { return saved[10]; }

    AutogradContext* context;
    variable_list saved;
    at::Tensor d_y;
    double scale = 1.0;
    std::int64_t experts = 0, rank = 0;
    at::Tensor d_mixed, d_weighted, d_gate, d_hidden, d_reduced, d_up_B, d_down_A;
  };
};

}  // namespace

at::Tensor mixture_mlp(const at::Tensor& x, const at::Tensor& gate, const FrozenMlp& mlp,
                       const ExpertFactors& factors) {
  return MixtureFunction::apply(x, gate, mlp.up, mlp.up_bias, mlp.down, mlp.down_bias, factors.up_A,
                                factors.up_B, factors.down_A, factors.down_B, factors.scale);
}

at::Tensor plain_mlp(const at::Tensor& x, const FrozenMlp& mlp) {
  return at::addmm(mlp.down_bias, at::gelu(at::addmm(mlp.up_bias, x, mlp.up), approximation), mlp.down);
}

}  // namespace comigs::model
