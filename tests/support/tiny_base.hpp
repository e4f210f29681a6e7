// A GPT-2 of some thousand random weights, in memory or as a Hugging Face folder.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comigs/io/safetensors.hpp"
#include "comigs/model/base_model.hpp"
#include "support/tensors.hpp"
#include "support/tokens.hpp"

namespace comigs::test {

/// 2 layers, width 16, 2 heads, vocabulary 37, 24 positions: no two dimensions alike, so that none can be
/// taken for another.
inline model::Architecture tiny_architecture() { return model::gpt2_architecture(2, 16, 2, 37, 24); }

/// Of the same sizes in the Llama family: two heads of queries for one of keys, gated MLP, rotary positions.
inline model::Architecture tiny_llama_architecture() {
  return {.family = "llama",
          .layers = 2,
          .width = 16,
          .heads = 2,
          .key_value_heads = 1,
          .head_size = 8,
          .inner = 40,
          .vocabulary = 37,
          .positions = 24,
          .activation = model::Activation::silu_gated,
          .rotary = {.theta = 10000.0},
          .attention = {{"self_attn.q_proj", 16, 16},
                        {"self_attn.k_proj", 16, 8},
                        {"self_attn.v_proj", 16, 8},
                        {"self_attn.o_proj", 16, 16}},
          .up = {{"mlp.gate_proj", 16, 40}, {"mlp.up_proj", 16, 40}},
          .down = {"mlp.down_proj", 40, 16}};
}

using Weights = std::map<std::string, at::Tensor>;

/// Weights large enough that attention, experts and biases all show in the output.
inline Weights random_weights(const model::Architecture& architecture) {
  Weights weights;
  std::uint32_t number = 1000;
  for (const model::WeightSpec& spec : model::weight_specs(architecture)) {
    const bool scale = spec.kind == model::WeightSpec::Kind::scale;
    weights[spec.name] = normal(spec.shape, number++, scale ? 0.1 : 0.2) + (scale ? 1.0 : 0.0);
  }
  return weights;
}

inline std::unique_ptr<model::BaseModel> tiny_base(
    const model::Architecture& architecture = tiny_architecture()) {
  return model::make_base_model(architecture,
                                [weights = random_weights(architecture)](const model::WeightSpec& spec) {
                                  return weights.at(spec.name);
                                });
}

/// A safetensors file with these tensors (float32, bfloat16 or float16), each named `prefix` and its key; the
/// head is named without one, as transformers does.
inline void write_weights_file(const std::filesystem::path& file, const Weights& weights,
                               const std::string& prefix = "transformer.") {
  const std::map<at::ScalarType, io::Dtype> types = {{at::kFloat, io::Dtype::float32},
                                                     {at::kBFloat16, io::Dtype::bfloat16},
                                                     {at::kHalf, io::Dtype::float16}};
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, tensor] : weights)
    tensors.push_back({name == "lm_head.weight" ? name : prefix + name,
                       {.dtype = types.at(tensor.scalar_type()),
                        .shape = tensor.sizes().vec(),
                        .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}}});
  io::write_safetensors(file, tensors);
}

/// The same as `folder`/model.safetensors.
inline void write_weights(const std::filesystem::path& folder, const Weights& weights,
                          const std::string& prefix = "transformer.") {
  write_weights_file(folder / "model.safetensors", weights, prefix);
}

inline void write_base(const std::filesystem::path& folder, const model::Architecture& architecture,
                       const Weights& weights) {
  write_text(folder / "config.json", model::config_json(architecture));
  write_weights(folder, weights);
}

}  // namespace comigs::test
