// GPT-2 (Radford et al. 2019): the pieces of the network. Weights lie as in its files: y = x W + b with W
// [in, out].
#include <ATen/ATen.h>

#include <map>

#include "comigs/base/error.hpp"
#include "comigs/model/precision.hpp"
#include "families.hpp"

namespace comigs::model {

namespace {

struct Layer {
  Norm norm_1, norm_2;
  Weight attend, project;
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
    const auto pair = [&](const std::string& name) {
      return Weight{.matrix = find(name + ".weight"), .bias = find(name + ".bias")};
    };
    const auto norm = [&](const std::string& name) {
      return Norm{.kind = Norm::Kind::layer,
                  .weight = find(name + ".weight"),
                  .bias = find(name + ".bias"),
                  .epsilon = architecture_.norm_epsilon};
    };
    final_norm_ = norm("ln_f");
    for (std::int64_t l = 0; l < architecture_.layers; ++l) {
      const std::string layer = fmt::format("h.{}.", l);
      layers_.push_back({.norm_1 = norm(layer + "ln_1"),
                         .norm_2 = norm(layer + "ln_2"),
                         .attend = pair(layer + "attn.c_attn"),
                         .project = pair(layer + "attn.c_proj"),
                         .mlp = {.activation = architecture_.activation,
                                 .up = {pair(layer + "mlp.c_fc")},
                                 .down = pair(layer + "mlp.c_proj")}});
    }
  }

  [[nodiscard]] const Architecture& architecture() const override { return architecture_; }
  [[nodiscard]] const at::Tensor& head() const override { return head_; }

  [[nodiscard]] at::Tensor embed(const at::Tensor& tokens) const override {
    return at::embedding(embedding_, tokens).to(activations_);
  }
  [[nodiscard]] at::Tensor place(const at::Tensor& x, const Sequences& sequences) const override {
    const at::Tensor positions = positions_.narrow(0, sequences.first, sequences.length);
    return (x + positions.to(activations_)).view({sequences.count * sequences.length, architecture_.width});
  }
  [[nodiscard]] const Norm& norm_1(std::size_t layer) const override { return layers_[layer].norm_1; }
  [[nodiscard]] const Norm& norm_2(std::size_t layer) const override { return layers_[layer].norm_2; }
  [[nodiscard]] Heads split(std::size_t layer, const at::Tensor& x, const Sequences& sequences,
                            Hooks& hooks) const override {
    const std::vector<at::Tensor> parts =
        hooks.project(layer, 0, x, layers_[layer].attend)
            .view({sequences.count, sequences.length, 3, architecture_.heads, architecture_.head_size})
            .unbind(2);
    const auto by_head = [&](std::size_t part) { return parts[part].transpose(1, 2); };
    return {.queries = by_head(0), .keys = by_head(1), .values = by_head(2)};
  }
  [[nodiscard]] at::Tensor rejoin(std::size_t layer, const at::Tensor& joined, Hooks& hooks) const override {
    return hooks.project(layer, 1, joined, layers_[layer].project);
  }
  [[nodiscard]] const FrozenMlp& mlp(std::size_t layer) const override { return layers_[layer].mlp; }
  [[nodiscard]] const Norm& final_norm() const override { return final_norm_; }

 private:
  Architecture architecture_;
  at::ScalarType activations_;
  at::Tensor embedding_, head_, positions_;
  Norm final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<BaseModel> make_gpt2(const Architecture& architecture, const WeightSource& weights,
                                     std::optional<at::ScalarType> activations) {
  return std::make_unique<Gpt2>(architecture, weights, activations);
}

}  // namespace comigs::model
