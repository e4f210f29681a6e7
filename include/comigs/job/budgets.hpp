// How many experts a user's budgets allow.
#pragma once

#include "comigs/config/config.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::job {

/// The most experts that `auto` gives.
inline constexpr std::int64_t most_automatic_experts = 16;

/// Puts a number where a user's experts are `auto`: the most, 16 at most, with which
/// - the base, its training and a step as large as with a single expert stay within `memory`, and
/// - a step's FLOPs stay within `step_budget` times those of a step with a single expert;
/// not fewer than the generalists that the user has chosen. Depends on the configuration and the base model
/// alone: activations count as if computed in float32 on any CPU, so that all ranks of a run, and the run and
/// its resumption, come to one number. Throws ConfigError where no budget is given, where the method fixes
/// the number, and where the generalists alone are beyond the step's budget.
void settle_experts(const federation::Method& method, config::Config& config,
                    const model::Architecture& architecture);

}  // namespace comigs::job
