#include "comigs/adapter/footprint.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "comigs/adapter/kind.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy_chunk.hpp"

namespace comigs::adapter {

namespace {

// Shapes as numbers that do not overflow. Q: what attention's heads of queries hold together, K: of keys.
struct Shape {
  double C, F, S, L, V, Q, K;

  explicit Shape(const model::Architecture& architecture)
      : C(static_cast<double>(architecture.width)),
        F(static_cast<double>(architecture.inner)),
        S(static_cast<double>(architecture.up.size())),
        L(static_cast<double>(architecture.layers)),
        V(static_cast<double>(architecture.vocabulary)),
        Q(static_cast<double>(architecture.heads * architecture.head_size)),
        K(static_cast<double>(architecture.key_value_heads * architecture.head_size)) {}

  // Queries, keys, values and what attention makes of them.
  [[nodiscard]] double attention() const { return 2 * Q + 2 * K; }
};

std::int64_t bytes(double elements, at::ScalarType type) {
  return static_cast<std::int64_t>(elements * static_cast<double>(c10::elementSize(type)));
}

// Logits, and the head in the precision that they are computed in.
double of_cross_entropy(const Shape& shape, const model::Computation& computation, std::int64_t tokens) {
  const auto vocabulary = static_cast<std::int64_t>(shape.V);
  const auto chunk = static_cast<double>(model::tokens_of_chunk(tokens, vocabulary, computation.on_gpu)),
             stride = static_cast<double>(model::logit_stride(vocabulary));
  return chunk * stride + (computation.computed == computation.stored ? 0.0 : shape.V * shape.C);
}

double widened_projection(const Shape& shape, const model::Computation& computation) {
  return computation.computed == computation.stored ? 0.0 : shape.F * shape.C;
}

// Measured: the allocator's gaps and the products' own buffers are one part in five.
constexpr double gaps = 1.2;

}  // namespace

Footprint footprint(const model::Architecture& architecture, const UserModel& user_model,
                    const model::Computation& computation, std::int64_t tokens, std::int64_t sequences) {
  const Shape shape(architecture);
  const auto [C, F, S, L, V, Q, K] = shape;
  const Load load = user_model.load(architecture);
  const auto n = static_cast<double>(tokens), B = static_cast<double>(sequences);
  double weights = 0.0;
  for (const model::WeightSpec& spec : model::weight_specs(architecture))
    weights += static_cast<double>(spec.count());
  // Kept for the backward pass by each layer: what the norms read and made (4 C), queries, keys, values and
  // what attention made of them, what the MLP's up projections gave (S F), what the adapter keeps. Alive
  // beside that in one layer's backward pass: gradients of what is between the projections, of some outer and
  // of the adapter's activations.
  const double above = L - load.first_layer, P = load.tokens_in_front,
               kept = (n + P) * above * (4 * C + shape.attention() + S * F) + n * (load.kept + 2 * C) +
                      B * load.kept_in_front + 2 * L * load.side_by_side,
               passing = n * ((2 * S + 1) * F + 4 * C + shape.attention() + load.passing) +
                         widened_projection(shape, computation);
  return {
      .base = bytes(weights, computation.stored),
      .parameters = bytes(4.0 * static_cast<double>(Layout(architecture, user_model).size()), at::kFloat),
      .activations = bytes(gaps * (kept + std::max(passing, of_cross_entropy(shape, computation, tokens))),
                           computation.computed) +
                     bytes(gaps * 2 * L * load.side_by_side_in_float32, at::kFloat),
      .evaluation = computation.on_gpu
                        ? evaluation_activations(architecture, user_model, computation, tokens, sequences)
                        : 0};
}

std::int64_t evaluation_activations(const model::Architecture& architecture, const UserModel& user_model,
                                    const model::Computation& computation, std::int64_t tokens,
                                    std::int64_t sequences) {
  const Shape shape(architecture);
  const auto [C, F, S, L, V, Q, K] = shape;
  const Load load = user_model.load(architecture);
  const auto n = static_cast<double>(tokens), B = static_cast<double>(sequences);
  // In a layer what comes in, its norm, and either queries, keys, values and what attention makes of them, or
  // the MLP's inner activations and what it gives; of all layers the routing and the adapter's factors. Then
  // the logits beside the last norm: larger than any gap that the layers leave, so that they come on top of
  // what these took.
  // Prompts' keys and values in all layers that they enter, and in one of them those that stand in front of
  // each sequence's.
  const double above = L - load.first_layer, P = load.tokens_in_front,
               in_front = P > 0 ? 2 * K * above * P + (n * load.kept + B * load.kept_in_front) / above : 0.0,
               layer = n * std::max(4 * C + shape.attention(), 4 * C + (S + 1) * F + load.passing) +
                       L * load.side_by_side + widened_projection(shape, computation) + in_front,
               head = n * C + of_cross_entropy(shape, computation, tokens);
  return bytes(gaps * (n * load.routing + layer + head), computation.computed) +
         bytes(gaps * L * load.side_by_side_in_float32, at::kFloat);
}

}  // namespace comigs::adapter
