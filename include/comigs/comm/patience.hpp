// How long ranks wait for each other.
#pragma once

#include <algorithm>
#include <chrono>

namespace comigs::comm {

/// Time spent waiting for others, by a process that looks again and again. A long gap between two looks is
/// one in which this process itself did not run (suspended by a batch system, a person, a debugger), and the
/// others may have stood still with it: after it, waiting begins anew.
class Patience {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Patience(double seconds, Clock::time_point now = Clock::now())
      : seconds_(seconds), own_gap_(std::clamp(seconds / 2, 0.1, 1.0)), last_look_(now) {}

  /// A look: whether more than the seconds have been waited.
  bool is_out(Clock::time_point now = Clock::now()) {
    const double gap = std::chrono::duration<double>(now - last_look_).count();
    last_look_ = now;
    waited_ = gap > own_gap_ ? 0.0 : waited_ + gap;
    return waited_ > seconds_;
  }
  [[nodiscard]] double waited_seconds() const { return waited_; }

 private:
  double seconds_, own_gap_, waited_ = 0.0;
  Clock::time_point last_look_;
};

}  // namespace comigs::comm
