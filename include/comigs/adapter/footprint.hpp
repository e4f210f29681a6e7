// The memory that a user's model takes, reckoned from shapes alone.
#pragma once

#include <cstdint>

#include "comigs/adapter/layout.hpp"
#include "comigs/model/architecture.hpp"
#include "comigs/model/precision.hpp"

namespace comigs::adapter {

/// Bytes, on the device that computes.
struct Footprint {
  std::int64_t base = 0;         ///< frozen weights; the ranks of a node or of a GPU share them
  std::int64_t parameters = 0;   ///< values, gradients and both AdamW moments
  std::int64_t activations = 0;  ///< most that is alive at a time in a step of `tokens` tokens
  /// Activations of an evaluation of as many, where it cannot have the step's memory: recordings keep theirs.
  std::int64_t evaluation = 0;

  [[nodiscard]] std::int64_t total() const { return base + parameters + activations + evaluation; }
};

/// Of a training step over `tokens` tokens at a time, in so many sequences. The program itself is not in it.
[[nodiscard]] Footprint footprint(const model::Architecture& architecture, const UserModel& user_model,
                                  const model::Computation& computation, std::int64_t tokens,
                                  std::int64_t sequences = 1);

/// Bytes of activations where `tokens` tokens at a time run forward only, as in evaluation.
[[nodiscard]] std::int64_t evaluation_activations(const model::Architecture& architecture,
                                                  const UserModel& user_model,
                                                  const model::Computation& computation, std::int64_t tokens,
                                                  std::int64_t sequences = 1);

}  // namespace comigs::adapter
