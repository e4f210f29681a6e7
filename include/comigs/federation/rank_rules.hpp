// Rules for users whose LoRA have different ranks: HetLoRA (Cho et al. 2023) and FlexLoRA (Bai et al. 2024).
#pragma once

#include <span>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/federation/aggregation.hpp"

namespace comigs::federation {

/// Collective. HetLoRA's aggregation of corresponding LoRA of all ranks: A and B as they are (gamma, which
/// differs with the rank, has no part in it, as published) padded with zeros to rank `largest`, averaged with
/// weights in proportion to each rank's ||B A||_F, LoRA by LoRA (alike where all are zero), and truncated in
/// place to the first `keep` <= R of this rank's own R. Returns the weights [lora, rank]. `padded` is scratch
/// memory of sum (in + out) x largest numbers.
std::vector<double> all_pad_and_average(const comm::Communicator& world, comm::Reduction& reduction,
                                        const std::vector<adapter::Lora>& loras, std::int64_t largest,
                                        std::int64_t keep, at::Tensor& padded);

/// Collective. FlexLoRA's: the average D of gamma B A over ranks with these `weights`, decomposed as U S V^T;
/// this rank's factors become B = U_R sqrt(S_R / gamma), A = sqrt(S_R / gamma) V_R^T, so that gamma B A is
/// the best approximation of D of its own rank R. D is never formed: the factors of all ranks side by side
/// are reduced by QR first. Ranks share the work, LoRA by LoRA, and hand the results on: equal ranks R end
/// with equal bits. Returns the payload in bytes.
std::int64_t all_decompose(const comm::Communicator& world, const std::vector<adapter::Lora>& loras,
                           double gamma, std::span<const double> weights);

/// HetLoRA with rank self-pruning: where after local training the norm of the ranks beyond strength x rank is
/// below what the user was handed, the user goes on with that share of its rank.
class PaddedMeans : public Aggregation {
 public:
  explicit PaddedMeans(const AggregationSetup& setup);

  Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return true; }
  [[nodiscard]] std::vector<double> state() const override { return {tail_norm_received_}; }

 private:
  void take(const std::vector<double>& state) override { tail_norm_received_ = state.front(); }
  [[nodiscard]] double tail_norm() const;

  AggregationSetup setup_;
  std::int64_t largest_;
  comm::Reduction reduction_;
  at::Tensor padded_;
  double tail_norm_received_ = 0.0;
};

/// FlexLoRA, with weights in proportion to users' training tokens.
class Decomposition : public Aggregation {
 public:
  explicit Decomposition(const AggregationSetup& setup);

  Aggregated all_aggregate(std::int64_t round) override;
  [[nodiscard]] bool changes_parameters() const override { return true; }

 private:
  AggregationSetup setup_;
  std::vector<double> weights_;
};

}  // namespace comigs::federation
