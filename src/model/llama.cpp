// Llama (Touvron et al. 2023) and its relatives: the pieces of the network. Weights lie as in its files: y =
// x W^T with W [out, in].
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <numbers>

#include "comigs/base/error.hpp"
#include "comigs/model/precision.hpp"
#include "families.hpp"

namespace comigs::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Layer {
  Norm norm_1, norm_2, query_norm, key_norm;
  Weight queries, keys, values, output;
  FrozenMlp mlp;
};

// Of each pair of a head's numbers, by how much it turns from one position to the next: [head size / 2].
at::Tensor frequencies(const Rotary& rotary, std::int64_t head_size) {
  const at::Tensor f =
      at::pow(rotary.theta, -at::arange(0, head_size, 2, at::kDouble) / static_cast<double>(head_size));
  if (rotary.scaling == Rotary::Scaling::none) return f;
  if (rotary.scaling == Rotary::Scaling::linear) return f / rotary.factor;
  const auto original = static_cast<double>(rotary.original);
  const at::Tensor turns = f * (original / (2.0 * std::numbers::pi));  // in the context it was trained on
  const at::Tensor kept = ((turns - rotary.low) / (rotary.high - rotary.low)).clamp(0.0, 1.0);
  return f / rotary.factor * (1.0 - kept) + f * kept;
}

// x [B, T, heads, 2 d], cosines and sines [T, 1, d] in its precision -> [B, heads, T, 2 d], in memory of its
// own; `turn` -1 is the way back, [B, heads, T, 2 d] -> [B, T, heads, 2 d].
at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines, double turn) {
  const at::Tensor to = at::empty(x.transpose(1, 2).sizes(), x.options()), from = x.transpose(1, 2);
  const bool forward = turn > 0;
  const at::Tensor c = forward ? cosines.transpose(0, 1) : cosines,
                   s = forward ? sines.transpose(0, 1) : sines;
  const std::vector<at::Tensor> in = from.chunk(2, -1), out = to.chunk(2, -1);
  at::Tensor low = out[0], high = out[1];
  at::mul_out(low, in[0], c);
  low.addcmul_(in[1], s, -turn);
  at::mul_out(high, in[1], c);
  high.addcmul_(in[0], s, turn);
  return to;
}

class RotateFunction : public torch::autograd::Function<RotateFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosines,
                            const at::Tensor& sines) {
    context->save_for_backward({cosines, sines});
    return rotated(x, cosines, sines, 1.0);
  }
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const variable_list saved = context->get_saved_variables();
    return {rotated(outputs[0], saved[0], saved[1], -1.0), {}, {}};
  }
};

class Llama : public BaseModel {
 public:
  Llama(const Architecture& architecture, const WeightSource& source,
        std::optional<at::ScalarType> activations)
      : architecture_(architecture) {
    std::map<std::string, at::Tensor> weights;
    for (const WeightSpec& spec : llama_weights(architecture_)) weights[spec.name] = source(spec);
    embedding_ = weights.at("embed_tokens.weight");
    head_ = architecture_.tied_head ? embedding_ : weights.at("lm_head.weight");
    activations_ = activations.value_or(activation_type(embedding_.scalar_type(), embedding_.device()));
    // Norms and biases, which are small, are kept in the activations' precision; matrices stay where they
    // are.
    const auto small = [&](const std::string& name) {
      const auto found = weights.find(name);
      return found == weights.end() ? at::Tensor() : found->second.to(activations_);
    };
    const auto projection = [&](const std::string& name) {
      return Weight{.matrix = weights.at(name + ".weight").t(), .bias = small(name + ".bias")};
    };
    const auto norm = [&](const std::string& name) {
      return Norm{.kind = Norm::Kind::root_mean_square,
                  .weight = small(name + ".weight"),
                  .bias = {},
                  .epsilon = architecture_.norm_epsilon};
    };
    final_norm_ = norm("norm");
    for (std::int64_t l = 0; l < architecture_.layers; ++l) {
      const std::string layer = fmt::format("layers.{}.", l), mlp = layer + "mlp.",
                        attention = layer + "self_attn.";
      layers_.push_back({.norm_1 = norm(layer + "input_layernorm"),
                         .norm_2 = norm(layer + "post_attention_layernorm"),
                         .query_norm = norm(attention + "q_norm"),
                         .key_norm = norm(attention + "k_norm"),
                         .queries = projection(attention + "q_proj"),
                         .keys = projection(attention + "k_proj"),
                         .values = projection(attention + "v_proj"),
                         .output = projection(attention + "o_proj"),
                         .mlp = {.activation = architecture_.activation,
                                 .up = {projection(mlp + "gate_proj"), projection(mlp + "up_proj")},
                                 .down = projection(mlp + "down_proj")}});
    }
    const at::Tensor angles = at::outer(at::arange(architecture_.positions, at::kDouble),
                                        frequencies(architecture_.rotary, architecture_.head_size));
    const auto table = [&](const at::Tensor& values) {
      return values.unsqueeze(1).to(embedding_.device(), activations_);
    };
    cosines_ = table(angles.cos());
    sines_ = table(angles.sin());
  }

  [[nodiscard]] const Architecture& architecture() const override { return architecture_; }
  [[nodiscard]] const at::Tensor& head() const override { return head_; }

  [[nodiscard]] at::Tensor embed(const at::Tensor& tokens) const override {
    return at::embedding(embedding_, tokens).to(activations_);
  }
  [[nodiscard]] at::Tensor place(const at::Tensor& x, const Sequences& sequences) const override {
    // Queries and keys are turned.
    return x.view({sequences.count * sequences.length, architecture_.width});
  }
  [[nodiscard]] const Norm& norm_1(std::size_t layer) const override { return layers_[layer].norm_1; }
  [[nodiscard]] const Norm& norm_2(std::size_t layer) const override { return layers_[layer].norm_2; }
  [[nodiscard]] Heads split(std::size_t layer, const at::Tensor& x, const Sequences& sequences,
                            Hooks& hooks) const override {
    const Layer& at = layers_[layer];
    const auto by_head = [&](const at::Tensor& projected, std::int64_t heads) {
      return projected.view({sequences.count, sequences.length, heads, architecture_.head_size});
    };
    const at::Tensor queries = by_head(hooks.project(layer, 0, x, at.queries), architecture_.heads),
                     keys = by_head(hooks.project(layer, 1, x, at.keys), architecture_.key_value_heads),
                     values = by_head(hooks.project(layer, 2, x, at.values), architecture_.key_value_heads);
    const auto rotated = [&](const at::Tensor& heads, const Norm& head_norm) {
      return rotate(architecture_.head_norms ? norm(head_norm, heads) : heads, sequences);
    };
    return {.queries = rotated(queries, at.query_norm),
            .keys = rotated(keys, at.key_norm),
            .values = values.transpose(1, 2)};
  }
  [[nodiscard]] at::Tensor rejoin(std::size_t layer, const at::Tensor& joined, Hooks& hooks) const override {
    return hooks.project(layer, 3, joined, layers_[layer].output);
  }
  [[nodiscard]] const FrozenMlp& mlp(std::size_t layer) const override { return layers_[layer].mlp; }
  [[nodiscard]] const Norm& final_norm() const override { return final_norm_; }

 private:
  [[nodiscard]] at::Tensor rotate(const at::Tensor& heads, const Sequences& sequences) const {
    const auto of_positions = [&](const at::Tensor& table) {
      return table.narrow(0, sequences.first, sequences.length);
    };
    return RotateFunction::apply(heads, of_positions(cosines_), of_positions(sines_));
  }

  Architecture architecture_;
  at::ScalarType activations_;
  at::Tensor embedding_, head_, cosines_, sines_;
  Norm final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<BaseModel> make_llama(const Architecture& architecture, const WeightSource& weights,
                                      std::optional<at::ScalarType> activations) {
  return std::make_unique<Llama>(architecture, weights, activations);
}

}  // namespace comigs::model
