// The optimiser: AdamW over slices of a flat block.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"

namespace comigs::train {

/// The constants of AdamW that do not change from step to step.
struct AdamwConstants {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.01;
};

/// Owns both moments of a block [P] of float32. Slices that are stepped on their own (experts, routers) count
/// their steps on their own.
class Adamw {
 public:
  Adamw(const at::Tensor& values, const at::Tensor& gradients, const AdamwConstants& constants);

  /// One step of the slice with the gradients that lie in the block. `step_number` counts the slice's steps
  /// from 1.
  void step(const adapter::Slice& slice, double learning_rate, std::int64_t step_number, double weight_decay);
  void step(const adapter::Slice& slice, double learning_rate, std::int64_t step_number) {
    step(slice, learning_rate, step_number, constants_.weight_decay);
  }

  [[nodiscard]] const at::Tensor& first_moments() const noexcept { return first_moments_; }  ///< [P]
  /// [P]. A gradient whose square overflows stops its parameter for good, without a trace in values or
  /// losses: only here is it seen.
  [[nodiscard]] const at::Tensor& second_moments() const noexcept { return second_moments_; }

 private:
  at::Tensor values_, gradients_, first_moments_, second_moments_;
  AdamwConstants constants_;
};

}  // namespace comigs::train
