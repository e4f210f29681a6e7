// The arithmetic that a user's model takes, reckoned from shapes alone.
#pragma once

#include <cstdint>

#include "comigs/adapter/user_model.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::adapter {

/// What is done with tokens: a forward pass alone, or with the gradients of one phase's parameters.
/// Warm-up: of a gate by sequence alone, which needs no layer above the one that it reads.
enum class Pass { evaluation, experts, routers, warmup };

/// Floating-point operations in products (multiplications and additions) for `tokens` tokens in sequences of
/// `context`: of a forward pass 2 for each frozen weight in products and token, 2 T C a token and layer for
/// causal attention, 2 for each trained number that its kind says a token is multiplied with; twice as many
/// again for gradients of activations (attention: of three), and the trained ones' once more for their own.
/// What a step computes twice is not counted twice.
[[nodiscard]] double flops(const model::Architecture& architecture, const UserModel& user_model, Pass pass,
                           std::int64_t tokens, std::int64_t context);

}  // namespace comigs::adapter
