// Learning rates over the steps of a run.
#pragma once

#include <cstdint>

namespace comigs::train {

/// One-cycle with cosine halves: over the first `warmup_fraction` of the steps the rate rises from
/// `final_fraction` of the peak to the peak, then falls back to it at the last step. Without warm-up the
/// first step has the peak.
struct CosineSchedule {
  double peak = 0.0;
  double warmup_fraction = 0.0;
  double final_fraction = 0.1;
  std::int64_t steps = 1;

  /// The rate of step `step`, counted from 0.
  [[nodiscard]] double rate(std::int64_t step) const;
};

}  // namespace comigs::train
