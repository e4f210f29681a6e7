// GPT-2 (Radford et al. 2019): the way through the network. Weights lie as in its files: y = x W + b with W
// [in, out].
#include <ATen/ATen.h>

#include <map>

#include "comigs/base/error.hpp"
#include "comigs/model/precision.hpp"
#include "families.hpp"

namespace comigs::model {

namespace {

struct Layer {
  at::Tensor norm_1, norm_1_bias, attend, attend_bias, project, project_bias, norm_2, norm_2_bias;
  FrozenMlp mlp;
};

class Gpt2 : public BaseModel {
 public:
  Gpt2(const Architecture& architecture, const WeightSource& source,
       std::optional<at::ScalarType> activations)
      : architecture_(architecture) {
    std::map<std::string, at::Tensor> weights;
    for (const WeightSpec& spec : gpt2_weights(architecture_)) weights[spec.name] = source(spec);
    embedding_ = weights.at("wte.weight");
    head_ = architecture_.tied_head ? embedding_ : weights.at("lm_head.weight");
    activations_ = activations.value_or(activation_type(embedding_.scalar_type(), embedding_.device()));
    positions_ = weights.at("wpe.weight");
    // Biases and norms, which are small, are kept in the activations' precision; matrices stay where they
    // are.
    const auto find = [&](const std::string& name) {
      const at::Tensor& weight = weights.at(name);
      return weight.dim() == 1 ? weight.to(activations_) : weight;
    };
    final_norm_ = find("ln_f.weight");
    final_norm_bias_ = find("ln_f.bias");
    for (std::int64_t l = 0; l < architecture_.layers; ++l) {
      const auto at = [&](const char* name) { return find(fmt::format("h.{}.{}", l, name)); };
      layers_.push_back({.norm_1 = at("ln_1.weight"),
                         .norm_1_bias = at("ln_1.bias"),
                         .attend = at("attn.c_attn.weight"),
                         .attend_bias = at("attn.c_attn.bias"),
                         .project = at("attn.c_proj.weight"),
                         .project_bias = at("attn.c_proj.bias"),
                         .norm_2 = at("ln_2.weight"),
                         .norm_2_bias = at("ln_2.bias"),
                         .mlp = {.up = at("mlp.c_fc.weight"),
                                 .up_bias = at("mlp.c_fc.bias"),
                                 .down = at("mlp.c_proj.weight"),
                                 .down_bias = at("mlp.c_proj.bias")}});
    }
  }

  [[nodiscard]] const Architecture& architecture() const override { return architecture_; }
  [[nodiscard]] const at::Tensor& head() const override { return head_; }

  [[nodiscard]] Forward forward(const at::Tensor& tokens, const Parameters& parameters) const override {
    const std::int64_t B = tokens.size(0), T = tokens.size(1);
    if (T > architecture_.positions)
      throw DataError(fmt::format("a context of {} tokens, but the base model has {} positions", T,
                                  architecture_.positions));
    Forward result;
    at::Tensor x =
        (at::embedding(embedding_, tokens).to(activations_) + positions_.narrow(0, 0, T).to(activations_))
            .view({B * T, architecture_.width});
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const Layer& layer = layers_[l];
      const LayerParameters& trained = parameters.layers()[l];
      x = x +
          attention(norm(x, layer.norm_1, layer.norm_1_bias), layer, trained, parameters.user_model(), B, T);
      x = x + expert_mlp(norm(x, layer.norm_2, layer.norm_2_bias), layer.mlp, trained,
                         parameters.user_model(), result.routing);
    }
    result.hidden = norm(x, final_norm_, final_norm_bias_);
    return result;
  }

 private:
  [[nodiscard]] at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const {
    return at::layer_norm(x, {architecture_.width}, weight, bias, architecture_.layer_norm_epsilon);
  }

  // x [B T, C] -> [B T, C]
  [[nodiscard]] at::Tensor attention(const at::Tensor& x, const Layer& layer, const LayerParameters& trained,
                                     const UserModel& user_model, std::int64_t B, std::int64_t T) const {
    const auto lora = [&](std::size_t site) {
      return trained.attention.empty() ? nullptr : &trained.attention[site];
    };
    const double scale = user_model.scale();
    const at::Tensor qkv = linear(x, layer.attend, layer.attend_bias, lora(0), scale);
    const std::int64_t heads = architecture_.heads, size = architecture_.width / heads;
    const std::vector<at::Tensor> split = qkv.view({B, T, 3, heads, size}).unbind(2);
    const auto by_head = [&](std::size_t part) {
      return split[part].transpose(1, 2);
    };  // [B, heads, T, size]
    const at::Tensor mixed =
        at::scaled_dot_product_attention(by_head(0), by_head(1), by_head(2), {}, 0.0, true);
    const at::Tensor joined = mixed.transpose(1, 2).reshape({B * T, architecture_.width});
    return linear(joined, layer.project, layer.project_bias, lora(1), scale);
  }

  Architecture architecture_;
  at::ScalarType activations_;
  at::Tensor embedding_, head_, positions_, final_norm_, final_norm_bias_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<BaseModel> make_gpt2(const Architecture& architecture, const WeightSource& weights,
                                     std::optional<at::ScalarType> activations) {
  return std::make_unique<Gpt2>(architecture, weights, activations);
}

}  // namespace comigs::model
