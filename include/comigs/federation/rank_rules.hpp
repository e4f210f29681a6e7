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

/// The LoRA that have the user's rank: all, or the experts' where attention has a rank of its own.
[[nodiscard]] adapter::Select of_users_rank(const adapter::UserModel& user);

/// Collective. Where the LoRA beside attention have a rank of their own, alike for all: their plain mean over
/// users, in place. Returns the payload in bytes; nothing is done and sent where they have the users' ranks.
std::int64_t all_average_attention(const AggregationSetup& setup, comm::Reduction& reduction);
/// What it sends.
[[nodiscard]] std::int64_t bytes_of_attention(const adapter::Layout& layout, const adapter::UserModel& user,
                                              comm::Sums sums);

/// What self-pruning leaves of a rank: floor(strength rank), at least 1.
[[nodiscard]] std::int64_t rank_after_pruning(std::int64_t rank, double strength);

/// sum over these LoRA of ||A[begin:end, :]||_F ||B[:, begin:end]||_F. Differentiable; float32 scalar.
[[nodiscard]] at::Tensor tail_norm(const std::vector<adapter::Lora>& loras, std::int64_t begin,
                                   std::int64_t end);

/// HetLoRA's penalty where nothing is pruned, as the authors' program trains FFA-LoRA and FlexLoRA: empty
/// unless [method] rank_regulariser is given. Keeps a reference to the parameters.
[[nodiscard]] train::Regulariser tail_penalty(const AggregationSetup& setup);

/// Every user's LoRA rank.
[[nodiscard]] std::vector<std::int64_t> ranks_of(const std::vector<adapter::UserModel>& users);

/// Numbers in the factors of these LoRA, were their rank `rank`.
[[nodiscard]] std::int64_t padded_count(std::span<const adapter::Widths> loras, std::int64_t rank);

}  // namespace comigs::federation
