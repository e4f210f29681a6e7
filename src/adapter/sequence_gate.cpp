#include "sequence_gate.hpp"

#include <ATen/ATen.h>

#include <cmath>

namespace comigs::adapter {

std::vector<Part> sequence_gate_parts(std::int64_t layer, std::int64_t width, std::int64_t gate_width,
                                      std::int64_t experts) {
  const Part router{.role = Role::router, .layer = layer};
  std::vector<Part> parts;
  const auto add = [&](const char* name, std::int64_t rows, const char* rows_are, std::int64_t columns,
                       const char* columns_are, double bound) {
    Part part = router;
    part.name = name;
    part.rows = rows;
    part.columns = columns;
    part.rows_are = rows_are;
    part.columns_are = columns_are;
    part.bound = bound;
    parts.push_back(part);
  };
  add("hidden_weight", gate_width, "gate_width", width, "width", 1.0 / std::sqrt(static_cast<double>(width)));
  add("hidden_bias", 1, "bias", gate_width, "gate_width", 0.0);
  add("output_weight", experts, "expert", gate_width, "gate_width", 0.0);
  add("output_bias", 1, "bias", experts, "expert", 0.0);
  return parts;
}

at::Tensor instruction_feature(const at::Tensor& x, const model::Sequences& sequences,
                               const at::Tensor& instruction) {
  const at::Tensor tokens = x.view({sequences.count, sequences.length, -1}).to(at::kFloat);
  at::Tensor mean;
  if (!instruction.defined()) {
    mean = tokens.mean(1);
  } else {
    const at::Tensor count = instruction.unsqueeze(1),
                     place = at::arange(sequences.length, instruction.options()).unsqueeze(0),
                     weight = place.lt(count).to(at::kFloat) / count;  // [B, T]
    mean = weight.unsqueeze(1).bmm(tokens).squeeze(1);
  }
  return at::layer_norm(mean, {mean.size(1)});
}

at::Tensor sequence_gate(const Parameters& parameters, const at::Tensor& feature) {
  const std::size_t first = parameters.leaves().size() - 4;  // they come last
  const auto leaf = [&](std::size_t i) { return parameters.leaves()[first + i]; };
  const at::Tensor hidden = at::linear(feature, leaf(0)) + leaf(1);
  return at::linear(at::gelu(hidden, "tanh"), leaf(2)) + leaf(3);
}

LayerRouting sequence_routing(const at::Tensor& logits, const at::Tensor& log_gate) {
  const at::Tensor gate = log_gate.exp(), largest = logits.detach().argmax(-1, /*keepdim=*/true),
                   chosen = at::zeros_like(logits, at::kBool).scatter_(1, largest, true);
  return {.logits = logits,
          .gate = gate,
          .distribution = gate,
          .chosen = chosen,
          .load = chosen.to(at::kFloat).mean(0),
          .probability = gate.mean(0)};
}

}  // namespace comigs::adapter
