// What an MLP block has between its projections.
#pragma once

#include <cstdint>

namespace comigs::kernels {

enum class Activation {
  gelu_tanh,   ///< gelu(z) of one projection, GPT-2's "gelu_new" (Hendrycks & Gimpel 2016, by tanh)
  silu_gated,  ///< silu(z_0) z_1 of two, the gate's first (SwiGLU: Shazeer 2020)
};

/// Projections of the block's input that it takes: S.
[[nodiscard]] constexpr std::int64_t up_projections(Activation activation) {
  return activation == Activation::silu_gated ? 2 : 1;
}

}  // namespace comigs::kernels
