// How the device's mixture is cut into blocks, where its partial sums stand, and the last step, which takes
// them together.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>

#include "mixture_tensor.hpp"

namespace comigs::kernels {

inline std::int64_t column_tiles(const MixtureShape& shape) { return tiles(shape.inner, tile_columns); }
inline std::int64_t token_tiles(const MixtureShape& shape) {
  return tiles(shape.tokens, tile_tokens(shape.ups()));
}

// As many parts as make one wave of blocks on an H100 (132 processors, three blocks each): more would be more
// partial sums to write and to add. Of the shape alone, so that bits do not depend on the card.
inline std::int64_t token_parts(const MixtureShape& shape) {
  constexpr std::int64_t wave = 132 * 3;
  return std::min(token_tiles(shape),
                  std::max<std::int64_t>(wave / std::max<std::int64_t>(column_tiles(shape), 1), 1));
}

inline bool aligned(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

// Whether a lane's columns can be loaded together.
template <class Number>
bool lanes_fit(const MixtureInputs<Number>& in, std::initializer_list<const Number*> rows) {
  constexpr std::size_t pack = lane_columns * sizeof(Number);
  return in.shape.inner % lane_columns == 0 && aligned(in.up_B, sizeof(Four)) &&
         aligned(in.down_A, sizeof(Four)) &&
         std::all_of(rows.begin(), rows.end(), [](const Number* row) { return aligned(row, pack); });
}

/// visit(way) with what suits the operands; `rows`: those of the inner width.
template <class Number, class Visit>
void with_way(const MixtureInputs<Number>& in, std::initializer_list<const Number*> rows,
              const Visit& visit) {
  if (!lanes_fit(in, rows)) return visit(ByLanes<false>());
  if constexpr (std::is_same_v<Number, Bfloat16>) {
    if (in.shape.rank <= 8) return visit(ByTensorCores<1>());
    if (in.shape.rank <= 16) return visit(ByTensorCores<2>());
  }
  visit(ByLanes<true>());
}

template <class Act, class Way, class Number>
ForwardPass<Number, Act, Way> forward_pass(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out,
                                           void* workspace) {
  return {in, out, static_cast<float*>(workspace)};
}

// The factors' sums come first: of an aligned workspace they are then aligned too.
template <class Act, class Way, class Number>
BackwardPass<Number, Act, Way> backward_pass(const MixtureInputs<Number>& in,
                                             const MixtureGradients<Number>& g, void* workspace) {
  const MixtureShape& shape = in.shape;
  const std::int64_t parts = token_parts(shape), factor = parts * shape.experts * shape.rank * shape.inner;
  const std::int64_t pairs = column_tiles(shape) * shape.tokens * shape.experts;
  auto* const up_B = static_cast<float*>(workspace);
  float* const down_A = up_B + shape.ups() * factor;
  float* const reduced = down_A + factor;
  return {in, g, reduced, reduced + shape.ups() * pairs * shape.rank, up_B, down_A, parts};
}

COMIGS_HOST_DEVICE inline float sum_in_order(const float* parts, std::int64_t count, std::int64_t stride,
                                             std::int64_t i) {
  float sum = 0.0f;
  for (std::int64_t part = 0; part < count; ++part) sum += parts[part * stride + i];
  return sum;
}

// Element i, for i below finish_elements(pass), of everything that the pass's blocks made in parts.
template <class Number, class Act, class Way>
COMIGS_HOST_DEVICE void finish(const ForwardPass<Number, Act, Way>& pass, std::int64_t i) {
  const MixtureShape& shape = pass.in.shape;
  const std::int64_t count = shape.tokens * shape.experts * shape.rank;
  if (i >= count) return;
  pass.out.weighted[i] =
      pass.in.gate[i / shape.rank] == 0.0f
          ? 0.0f
          : sum_in_order(pass.weighted_of_tile, tiles(shape.inner, tile_columns), count, i);
}

template <class Number, class Act, class Way>
COMIGS_HOST_DEVICE void finish(const BackwardPass<Number, Act, Way>& pass, std::int64_t i) {
  const MixtureShape& shape = pass.in.shape;
  const std::int64_t ups = Act::ups, pairs = shape.tokens * shape.experts,
                     coefficients = ups * pairs * shape.rank,
                     factor = shape.experts * shape.rank * shape.inner;
  const std::int64_t in_tiles = tiles(shape.inner, tile_columns);
  if (i < coefficients) {
    const std::int64_t row = i / shape.rank;  // of [n, S, E]
    const std::int64_t pair = row / (ups * shape.experts) * shape.experts + row % shape.experts;
    pass.g.d_reduced[i] =
        pass.in.gate[pair] == 0.0f ? 0.0f : sum_in_order(pass.reduced_of_tile, in_tiles, coefficients, i);
  }
  if (i < pairs && pass.g.d_gate != nullptr)
    pass.g.d_gate[i] = pass.in.gate[i] == 0.0f ? 0.0f : sum_in_order(pass.gate_of_tile, in_tiles, pairs, i);
  if (i < ups * factor && pass.g.d_up_B != nullptr)
    pass.g.d_up_B[i] = sum_in_order(pass.up_B_of_part, pass.parts, ups * factor, i);
  if (i < factor && pass.g.d_down_A != nullptr)
    pass.g.d_down_A[i] = sum_in_order(pass.down_A_of_part, pass.parts, factor, i);
}

template <class Number, class Act, class Way>
std::int64_t finish_elements(const ForwardPass<Number, Act, Way>& pass) {
  return pass.in.shape.tokens * pass.in.shape.experts * pass.in.shape.rank;
}
template <class Number, class Act, class Way>
std::int64_t finish_elements(const BackwardPass<Number, Act, Way>& pass) {
  const MixtureShape& shape = pass.in.shape;
  return shape.experts * std::max(shape.tokens * std::max<std::int64_t>(shape.ups() * shape.rank, 1),
                                  shape.ups() * shape.rank * shape.inner);
}

}  // namespace comigs::kernels
