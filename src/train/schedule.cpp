#include "comigs/train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace comigs::train {

double CosineSchedule::rate(std::int64_t step) const {
  const double low = final_fraction * peak;
  const auto between = [&](double done) {
    return low + (peak - low) * 0.5 * (1.0 + std::cos(std::numbers::pi * (1.0 - done)));
  };
  const auto warmup = static_cast<std::int64_t>(std::llround(warmup_fraction * static_cast<double>(steps)));
  if (step < warmup) return between(static_cast<double>(step + 1) / static_cast<double>(warmup + 1));
  const std::int64_t last = std::max<std::int64_t>(steps - 1 - warmup, 1);
  return between(1.0 - std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(last)));
}

}  // namespace comigs::train
