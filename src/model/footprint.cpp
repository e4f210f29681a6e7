#include "comigs/model/footprint.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "comigs/model/base_model.hpp"
#include "comigs/model/precision.hpp"
#include "cross_entropy_chunk.hpp"

namespace comigs::model {

namespace {

std::int64_t bytes(double elements, at::ScalarType type) {
  return static_cast<std::int64_t>(elements * static_cast<double>(c10::elementSize(type)));
}

}  // namespace

Footprint footprint(const Architecture& architecture, const UserModel& user_model, at::ScalarType stored,
                    const at::Device& device, std::int64_t tokens) {
  const at::ScalarType computed = activation_type(stored, device);
  const auto C = static_cast<double>(architecture.width), F = static_cast<double>(architecture.inner),
             L = static_cast<double>(architecture.layers), n = static_cast<double>(tokens),
             V = static_cast<double>(architecture.vocabulary);
  double weights = 0.0, trained = 0.0;
  for (const WeightSpec& spec : weight_specs(architecture)) weights += static_cast<double>(spec.count());
  for (const ParameterSpec& spec : parameter_specs(architecture, user_model))
    trained += static_cast<double>(spec.count());
  // Kept for the backward pass by each layer: what the norms read and made (4 C), queries, keys, values and
  // what attention made of them (4 C), the MLP's inner activations (F). Alive beside that in one layer's
  // backward pass: gradients of three inner and of some outer activations. The allocator's gaps are one part
  // in twenty.
  const double kept = n * (L * (8 * C + F) + 2 * C), passing = n * (3 * F + 8 * C);
  const auto chunk = static_cast<double>(tokens_of_chunk(tokens, architecture.vocabulary));
  const double widened = computed == stored ? 0.0 : std::max(V, F) * C;
  return {.base = bytes(weights, stored),
          .parameters = bytes(4 * trained, at::kFloat),
          .activations = bytes(1.05 * (kept + std::max(passing, chunk * V)) + widened, computed)};
}

}  // namespace comigs::model
