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

inline constexpr std::int64_t first_renewal_of_collaboration = 5;
/// Whether users judge each other's models in this round (from 1): in round 5 and every second one from then
/// on.
[[nodiscard]] bool renews_collaboration(std::int64_t round);

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

/// Every user weighs every other's model by its perplexity on its own validation data. W is uniform at first
/// and made anew in round 5 and every second round from then on.
class Collaboration : public Aggregation {
 public:
  explicit Collaboration(const AggregationSetup& setup);

  Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return true; }
  [[nodiscard]] std::vector<double> state() const override { return row_; }

 private:
  void take(const std::vector<double>& row) override { row_ = row; }
  [[nodiscard]] at::Tensor shared() const;
  /// Collective. Throws PeerError on every rank if a rank cannot evaluate.
  [[nodiscard]] std::vector<double> all_perplexities(std::int64_t round) const;

  AggregationSetup setup_;
  std::vector<double> row_;
};

}  // namespace comigs::federation
