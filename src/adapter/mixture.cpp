#include "comigs/adapter/mixture.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comigs/model/products.hpp"
#include "low_rank.hpp"
#include "mixed_activation.hpp"

namespace comigs::adapter {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum Input { in_x, in_gate, in_gate_sum, in_up_A, in_up_B, in_down_A, in_down_B, in_mlp, in_whole, inputs };

// Of what the up projections have one after the other, [S n, F], those of projection s.
at::Tensor of_projection(const at::Tensor& all, std::size_t s, std::int64_t tokens) {
  return all.size(0) == tokens ? all : all.narrow(0, static_cast<std::int64_t>(s) * tokens, tokens);
}

// x up_s + up_bias_s for each s: [S n, F].
at::Tensor up_products(const at::Tensor& x, const std::vector<model::Weight>& ups) {
  if (ups.size() == 1) return model::project(x, ups.front());
  const std::int64_t inner = ups.front().matrix.size(1);
  at::Tensor hidden = at::empty({static_cast<std::int64_t>(ups.size()) * x.size(0), inner}, x.options());
  for (std::size_t s = 0; s < ups.size(); ++s) {
    at::Tensor to = of_projection(hidden, s, x.size(0));
    model::product_to(to, x, model::in_precision(ups[s].matrix, x.scalar_type()), ups[s].bias);
  }
  return hidden;
}

class MixtureFunction : public torch::autograd::Function<MixtureFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gate,
                            const at::Tensor& gate_sum, const at::Tensor& up_A, const at::Tensor& up_B,
                            const at::Tensor& down_A, const at::Tensor& down_B, const model::FrozenMlp& mlp,
                            bool whole) {
    const at::Tensor hidden = up_products(x, mlp.up);        // [S n, F]
    const at::Tensor reduced = model::product(x, up_A.t());  // [n, S E R]
    const auto [mixed, weighted] = mix_activations({mlp.activation, hidden, reduced, gate, up_B, down_A});
    at::Tensor y = model::product(mixed, model::in_precision(mlp.down.matrix, x.scalar_type()),
                                  whole ? mlp.down.bias : at::Tensor());
    if (whole || !mlp.down.bias.defined())
      add_low_rank(y, weighted, down_B.t());
    else  // one more rank, so that y is rounded once
      add_low_rank(y, at::cat({weighted, gate_sum.to(weighted.scalar_type())}, 1),
                   at::cat({down_B.t(), mlp.down.bias.unsqueeze(0)}));
    variable_list saved = {
        x, gate, up_A, up_B, down_A, down_B, hidden, reduced, weighted, mlp.down.matrix, mlp.down.bias};
    for (const model::Weight& up : mlp.up) saved.push_back(up.matrix);
    context->save_for_backward(saved);
    context->saved_data["activation"] = static_cast<std::int64_t>(mlp.activation);
    context->saved_data["whole"] = whole;
    return y;
  }

  // d_ marks the gradient of the loss with respect to what follows.
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gate = saved[1], &up_A = saved[2], &up_B = saved[3], &down_A = saved[4],
                     &down_B = saved[5], &hidden = saved[6], &reduced = saved[7], &weighted = saved[8],
                     &down = saved[9], &down_bias = saved[10];
    const auto activation = static_cast<model::Activation>(context->saved_data["activation"].toInt());
    const auto needs = [&](Input input) { return context->needs_input_grad(input); };
    const auto dtype = x.scalar_type();
    const at::Tensor d_y = outputs[0].contiguous();
    const ActivationGradients d = mix_activations_backward(
        {activation, hidden, reduced, gate, up_B, down_A},
        model::product(d_y, model::in_precision(down, dtype).t()), model::product(d_y, down_B),
        {.gate = needs(in_gate), .up_B = needs(in_up_B), .down_A = needs(in_down_A)});
    variable_list gradients(inputs);
    if (needs(in_x)) {
      const std::size_t first = 11;
      const auto through = [&](std::size_t s) { return model::in_precision(saved[first + s], dtype).t(); };
      at::Tensor d_x = model::product(of_projection(d.hidden, 0, x.size(0)), through(0));
      for (std::size_t s = 1; first + s < saved.size(); ++s)
        model::add_product(d_x, of_projection(d.hidden, s, x.size(0)), through(s));
      gradients[in_x] = d_x.addmm_(d.reduced, up_A);
    }
    gradients[in_gate] = d.gate;
    if (!context->saved_data["whole"].toBool() && needs(in_gate_sum) && down_bias.defined())
      gradients[in_gate_sum] = d_y.mv(down_bias).to(at::kFloat).unsqueeze(1);
    if (needs(in_up_A)) gradients[in_up_A] = model::product(d.reduced.t(), x);
    gradients[in_up_B] = d.up_B;
    gradients[in_down_A] = d.down_A;
    if (needs(in_down_B)) gradients[in_down_B] = model::product(d_y.t(), weighted);
    return gradients;
  }
};

}  // namespace

at::Tensor mixture_mlp(const at::Tensor& x, const at::Tensor& gate, const model::FrozenMlp& mlp,
                       const ExpertFactors& factors, const at::Tensor& gate_sum) {
  const bool whole =
      !gate_sum.defined();  // then `gate` stands in, as autograd takes no input that is not there
  return MixtureFunction::apply(x, gate, whole ? gate : gate_sum, factors.up_A, factors.up_B, factors.down_A,
                                factors.down_B, mlp, whole);
}

}  // namespace comigs::adapter
