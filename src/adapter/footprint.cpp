#include "comigs/adapter/footprint.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy_chunk.hpp"

namespace comigs::adapter {

namespace {

// Shapes as numbers that do not overflow.
struct Shape {
  double C, F, L, V, E, R, sites;

  Shape(const model::Architecture& architecture, const UserModel& user_model)
      : C(static_cast<double>(architecture.width)),
        F(static_cast<double>(architecture.inner)),
        L(static_cast<double>(architecture.layers)),
        V(static_cast<double>(architecture.vocabulary)),
        E(user_model.gate == Gate::none ? 0.0 : static_cast<double>(user_model.experts)),
        R(static_cast<double>(user_model.lora_rank)),
        sites(E > 0 ? static_cast<double>(architecture.attention.size()) : 0.0) {}

  // The factors of a layer's experts, which stand side by side for its products.
  [[nodiscard]] double side_by_side() const { return E * R * 2 * (C + F); }
};

std::int64_t bytes(double elements, at::ScalarType type) {
  return static_cast<std::int64_t>(elements * static_cast<double>(c10::elementSize(type)));
}

// Logits, and the head in the precision that they are computed in.
double of_cross_entropy(const Shape& shape, const model::Computation& computation, std::int64_t tokens) {
  const auto chunk = static_cast<double>(model::tokens_of_chunk(tokens, static_cast<std::int64_t>(shape.V)));
  return chunk * shape.V + (computation.computed == computation.stored ? 0.0 : shape.V * shape.C);
}

double widened_projection(const Shape& shape, const model::Computation& computation) {
  return computation.computed == computation.stored ? 0.0 : shape.F * shape.C;
}

// Measured: the allocator's gaps and the products' own buffers are one part in five.
constexpr double gaps = 1.2;

}  // namespace

Footprint footprint(const model::Architecture& architecture, const UserModel& user_model,
                    const model::Computation& computation, std::int64_t tokens) {
  const Shape shape(architecture, user_model);
  const auto [C, F, L, V, E, R, sites] = shape;
  const auto n = static_cast<double>(tokens);
  double weights = 0.0;
  for (const model::WeightSpec& spec : model::weight_specs(architecture))
    weights += static_cast<double>(spec.count());
  // Kept for the backward pass by each layer: what the norms read and made (4 C), queries, keys, values and
  // what attention made of them (4 C), the MLP's inner activations (F), the low-rank terms, the gate and what
  // it was made of (4 E), the factors. Alive beside that in one layer's backward pass: gradients of three
  // inner, of some outer and of the low-rank activations.
  const double kept =
                   n * (L * (8 * C + F + sites * R + 2 * E * R + 4 * E) + 2 * C) + L * shape.side_by_side(),
               passing = n * (3 * F + 8 * C + 3 * E * R) + widened_projection(shape, computation);
  return {
      .base = bytes(weights, computation.stored),
      .parameters = bytes(4.0 * static_cast<double>(Layout(architecture, user_model).size()), at::kFloat),
      .activations = bytes(gaps * (kept + std::max(passing, of_cross_entropy(shape, computation, tokens))),
                           computation.computed),
      .evaluation =
          computation.on_gpu ? evaluation_activations(architecture, user_model, computation, tokens) : 0};
}

std::int64_t evaluation_activations(const model::Architecture& architecture, const UserModel& user_model,
                                    const model::Computation& computation, std::int64_t tokens) {
  const Shape shape(architecture, user_model);
  const auto [C, F, L, V, E, R, sites] = shape;
  const auto n = static_cast<double>(tokens);
  // In a layer what comes in, its norm, and either queries, keys, values and what attention makes of them, or
  // the MLP's inner activations twice and what it gives; of all layers the gates. Then the logits beside the
  // last norm: larger than any gap that the layers leave, so that they come on top of what these took.
  const double layer = n * std::max(8 * C, 4 * C + 2 * F + 3 * E * R) + shape.side_by_side() +
                       widened_projection(shape, computation),
               head = n * C + of_cross_entropy(shape, computation, tokens);
  return bytes(gaps * (n * L * 2 * E + layer + head), computation.computed);
}

}  // namespace comigs::adapter
