// The memory that a user's training takes, reckoned from shapes alone.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "comigs/model/architecture.hpp"
#include "comigs/model/parameters.hpp"

namespace comigs::model {

/// Bytes, on the device that computes.
struct Footprint {
  std::int64_t base = 0;         ///< frozen weights; on the CPU the ranks of a node share them
  std::int64_t parameters = 0;   ///< values, gradients and both AdamW moments
  std::int64_t activations = 0;  ///< most that is alive at a time in a step of `tokens` tokens

  [[nodiscard]] std::int64_t total() const { return base + parameters + activations; }
};

/// Of a training step over `tokens` tokens at a time, with the frozen weights in the precision `stored`. The
/// program itself (with LibTorch some 0.4 GiB, most of it shared) is not in it.
[[nodiscard]] Footprint footprint(const Architecture& architecture, const UserModel& user_model,
                                  at::ScalarType stored, const at::Device& device, std::int64_t tokens);

}  // namespace comigs::model
