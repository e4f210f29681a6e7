// The gate by sequence of a mixture of prompts: a small network that reads an instruction and weighs groups.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/routing.hpp"
#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

/// Its tensors, of width C -> H -> E: the hidden layer is drawn as PyTorch's linear layers are, the rest
/// begins as zero, so that all groups have the same weight.
[[nodiscard]] std::vector<Part> sequence_gate_parts(std::int64_t layer, std::int64_t width,
                                                    std::int64_t gate_width, std::int64_t experts);

/// [B, C] float32: the mean of the stream x [B T, C] over the instruction of each sequence, normalised to
/// mean 0 and variance 1. instruction [B] int64; undefined: all T tokens.
[[nodiscard]] at::Tensor instruction_feature(const at::Tensor& x, const model::Sequences& sequences,
                                             const at::Tensor& instruction);

/// Logits [B, E] float32: W2 gelu(W1 h + c1) + c2, differentiable in the four.
[[nodiscard]] at::Tensor sequence_gate(const Parameters& parameters, const at::Tensor& feature);

/// As evaluations read it; `log_gate`: log softmax of the logits.
[[nodiscard]] LayerRouting sequence_routing(const at::Tensor& logits, const at::Tensor& log_gate);

}  // namespace comigs::adapter
