// What a run takes of each of its users, reckoned before it begins.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/model/architecture.hpp"
#include "comigs/model/precision.hpp"

namespace comigs::job {

/// Bytes at the peak of a run: device memory on a GPU, else a process's resident set.
struct PeakMemory {
  std::int64_t base = 0;         ///< frozen weights; the ranks of a node or of a GPU share them
  std::int64_t training = 0;     ///< values, gradients, moments, and what the aggregation rule keeps
  std::int64_t activations = 0;  ///< most that steps, evaluations, ... have at a time beside that
  std::int64_t program = 0;      ///< libraries (shared too), their buffers, the user's texts

  [[nodiscard]] std::int64_t total() const { return base + training + activations + program; }
};

/// One user's part of a run.
struct Cost {
  std::int64_t parameters = 0;             ///< trainable
  std::int64_t micro_batch_sequences = 0;  ///< run at a time in a step
  PeakMemory memory;
  double start_flops = 0.0;       ///< of what precedes the first round: clusters of examples, an evaluation
  double training_flops = 0.0;    ///< of all rounds' steps, both phases
  double evaluation_flops = 0.0;  ///< of all rounds' evaluations
  std::int64_t bytes = 0;         ///< sent in all rounds
  /// Bytes of the host: on the CPU all of `memory`, on a GPU what its process takes beside the card.
  std::int64_t host_memory = 0;

  [[nodiscard]] double flops() const { return training_flops + evaluation_flops; }
};

/// A run as it is reckoned; the references must live as long.
struct CostSetup {
  const federation::Method& method;
  const config::Config& config;
  const std::vector<adapter::UserModel>& users;
  const data::Manifest& manifest;
  const model::Architecture& architecture;
  model::Computation computation;
  /// Bytes of the base's file where rank 0 converts it first; 0: it does not.
  std::int64_t weights_converted = 0;
};

/// Of user `user`. Throws ConfigError where not even one sequence fits the user's `memory`.
[[nodiscard]] Cost cost(const CostSetup& setup, std::size_t user);

/// Bytes of memory that all users on one node would take of it.
[[nodiscard]] std::int64_t memory_of_node(const std::vector<Cost>& costs, bool cuda);

}  // namespace comigs::job
