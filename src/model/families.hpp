// What each model family's file provides; `base_model.cpp` has the table.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <memory>
#include <string_view>

#include "comigs/model/base_model.hpp"

namespace comigs::model {

/// `values` is the parsed config.json at `file`, for messages.
[[nodiscard]] Architecture read_gpt2(const nlohmann::json& values, const std::filesystem::path& file);
/// All weights of a GPT-2, in the order of its files.
[[nodiscard]] std::vector<WeightSpec> gpt2_weights(const Architecture& architecture);
/// Causal masks, which OpenAI's and older files have beside the weights.
[[nodiscard]] bool is_no_gpt2_weight(std::string_view name);
/// The config.json that transformers reads back to the same architecture.
[[nodiscard]] std::string gpt2_config(const Architecture& architecture);
[[nodiscard]] std::unique_ptr<BaseModel> make_gpt2(const Architecture& architecture,
                                                   const WeightSource& weights,
                                                   std::optional<at::ScalarType> activations);

/// The Llama family: model_type llama, mistral, qwen2, qwen3.
[[nodiscard]] Architecture read_llama(const nlohmann::json& values, const std::filesystem::path& file);
[[nodiscard]] std::vector<WeightSpec> llama_weights(const Architecture& architecture);
/// Frequencies of rotary positions, which older files have beside the weights.
[[nodiscard]] bool is_no_llama_weight(std::string_view name);
[[nodiscard]] std::string llama_config(const Architecture& architecture);
[[nodiscard]] std::unique_ptr<BaseModel> make_llama(const Architecture& architecture,
                                                    const WeightSource& weights,
                                                    std::optional<at::ScalarType> activations);

}  // namespace comigs::model
