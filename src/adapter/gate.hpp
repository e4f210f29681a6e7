// From the router's logits to the experts' shares of each token.
#pragma once

#include "comigs/adapter/routing.hpp"

namespace comigs::adapter {

/// logits [n, E] float32; `active` from 1 to E: K. Differentiable in the logits through `gate` and
/// `probability`.
[[nodiscard]] LayerRouting top_k_gate(const at::Tensor& logits, std::int64_t active);

}  // namespace comigs::adapter
