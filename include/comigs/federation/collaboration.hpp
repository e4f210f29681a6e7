// PCL: user-specific mixtures of all users' parameters (Wagner et al. 2024, strategy 2).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/data/token_shard.hpp"
#include "comigs/federation/aggregation.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::federation {

/// Of a model that is judged.
inline constexpr std::int64_t batches_judged = 20;

/// How a user judges others' models, on batches that are the same for all models of a round. Keeps
/// references; makes what it needs at the first call.
[[nodiscard]] std::function<double(const at::Tensor& values, std::int64_t round)> validation_loss(
    const config::Config& config, const model::BaseModel& base, const adapter::Parameters& parameters,
    const data::TokenShard& validation, std::size_t user);

/// Softmax over users of minus the perplexity: a row of the collaboration matrix W.
[[nodiscard]] std::vector<double> collaboration_weights(const std::vector<double>& perplexities);

/// Collective over the world. `values` of rank i (float32, contiguous, equally long everywhere) become sum_j
/// row[j] values of rank j; `row` is rank i's own. Holds one copy of another rank's values at a time.
void all_mix(const comm::Communicator& world, const at::Tensor& values, std::span<const double> row);

}  // namespace comigs::federation
