// The frozen causal language model, whatever its family: a new family is one file and a row in
// `load_base_model`.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "comigs/model/architecture.hpp"
#include "comigs/model/hooks.hpp"
#include "comigs/model/key_value_cache.hpp"
#include "comigs/model/norm.hpp"
#include "comigs/model/weights.hpp"

namespace comigs::model {

/// Frozen weights and the pieces of the way through them; `forward` is the way. Immutable; owns nothing that
/// is trained. x is [B T, C] in the activations' precision.
class BaseModel {
 public:
  BaseModel() = default;
  BaseModel(const BaseModel&) = delete;
  BaseModel& operator=(const BaseModel&) = delete;
  virtual ~BaseModel() = default;

  [[nodiscard]] virtual const Architecture& architecture() const = 0;
  /// [V, C], as it is stored.
  [[nodiscard]] virtual const at::Tensor& head() const = 0;

  /// tokens [B, T] int64 on the model's device -> [B, T, C], without positions.
  [[nodiscard]] virtual at::Tensor embed(const at::Tensor& tokens) const = 0;
  /// [B, T, C] -> x, which is told the positions of its tokens, where the family adds them to the stream.
  [[nodiscard]] virtual at::Tensor place(const at::Tensor& x, const Sequences& sequences) const = 0;
  /// The norms in front of attention and in front of the MLP block.
  [[nodiscard]] virtual const Norm& norm_1(std::size_t layer) const = 0;
  [[nodiscard]] virtual const Norm& norm_2(std::size_t layer) const = 0;
  /// What attention takes, by heads, and what it gives, [B T, C], back to the stream: by `hooks.project`.
  [[nodiscard]] virtual Heads split(std::size_t layer, const at::Tensor& x, const Sequences& sequences,
                                    Hooks& hooks) const = 0;
  [[nodiscard]] virtual at::Tensor rejoin(std::size_t layer, const at::Tensor& joined,
                                          Hooks& hooks) const = 0;
  [[nodiscard]] virtual const FrozenMlp& mlp(std::size_t layer) const = 0;
  /// The last norm, of what the head is multiplied with.
  [[nodiscard]] virtual const Norm& final_norm() const = 0;
};

/// One layer of the way: the stream [B T, C] before and after it.
[[nodiscard]] ResidualStream through_layer(const BaseModel& base, std::size_t layer, ResidualStream stream,
                                           const Sequences& sequences, Hooks& hooks,
                                           KeyValueCache* cache = nullptr);

/// The stream [B T, C] as it enters `layer`: tokens [B, T] int64 on the model's device through all layers
/// below it.
[[nodiscard]] ResidualStream stream_into(const BaseModel& base, const at::Tensor& tokens, std::size_t layer,
                                         Hooks& hooks, KeyValueCache* cache = nullptr);

/// tokens [B, T] int64 on the model's device, T <= positions -> [B T, C], after the last norm. Differentiable
/// in what the hooks bring in. With a `cache` the tokens follow those that it holds, and it holds them too
/// afterwards; without gradients, and T = 1 once it holds any. Throws DataError where a context is too long.
[[nodiscard]] at::Tensor forward(const BaseModel& base, const at::Tensor& tokens, Hooks& hooks,
                                 KeyValueCache* cache = nullptr);

/// Reads the Hugging Face folder's config.json, and of its weights' files which tensors they have. Throws
/// DataError naming the file and the entry or tensor at fault, also where one would be passed over; a family
/// that comigs does not know is named with those that it does.
[[nodiscard]] Architecture read_architecture(const std::filesystem::path& folder);

/// A model of the architecture's family with weights from `weights`. Activations are float32 or bfloat16;
/// unsaid: what `activation_type` gives for the embedding.
[[nodiscard]] std::unique_ptr<BaseModel> make_base_model(
    const Architecture& architecture, const WeightSource& weights,
    std::optional<at::ScalarType> activations = std::nullopt);

/// The weights that a model of the architecture's family has, in the order of its files.
[[nodiscard]] std::vector<WeightSpec> weight_specs(const Architecture& architecture);

/// The matrix of one of the architecture's projections in each layer, as it is named in the family's files.
[[nodiscard]] std::vector<WeightSpec> weights_of(const Architecture& architecture,
                                                 const Projection& projection);

/// The model of a Hugging Face folder (config.json, model.safetensors or its shards) in `dtype` on `device`;
/// activations as in `make_base_model`. Throws DataError.
[[nodiscard]] std::unique_ptr<BaseModel> load_base_model(
    const std::filesystem::path& folder, at::ScalarType dtype, const at::Device& device,
    std::optional<at::ScalarType> activations = std::nullopt);

/// The config.json that transformers and `read_architecture` read back to the same architecture.
[[nodiscard]] std::string config_json(const Architecture& architecture);

/// Writes a Hugging Face folder that `load_base_model` and transformers read: model.safetensors, then
/// config.json, each atomically. Throws IoError.
void write_base_model(const std::filesystem::path& folder, const Architecture& architecture,
                      const WeightSource& weights);

}  // namespace comigs::model
