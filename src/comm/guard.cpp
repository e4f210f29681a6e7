#include "guard.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/base/output.hpp"
#include "comigs/comm/launch.hpp"
#include "comigs/comm/patience.hpp"
#include "comigs/comm/placement.hpp"

namespace comigs::comm {

namespace {

// False: the stop came first.
bool waits(const std::stop_token& stop, double seconds) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any changed;
  const std::chrono::duration<double> look(std::clamp(seconds / 10, 0.001, 0.1));
  Patience patience(seconds);
  while (!patience.is_out()) {
    changed.wait_for(lock, stop, look, [] { return false; });
    if (stop.stop_requested()) return false;
  }
  return true;
}

[[noreturn]] void end_process(int rank, const std::string& message) {
  print_error(fmt::format("comigs{}: {}\n", rank == 0 ? "" : fmt::format(" rank {}", rank), message));
  std::_Exit(static_cast<int>(ExitCode::failed));
}

}  // namespace

// The first one asks the others, for two seconds at most, before it speaks.
double grace_seconds(int rank) { return rank == 0 ? 0.0 : 3.0 + 0.2 * std::min(rank, 5); }

Guard::Guard(const char* call, double seconds, int rank, const std::function<std::string(int)>& name_of) {
  if (!std::isfinite(seconds)) return;
  thread_ = std::jthread([=](const std::stop_token& stop) {
    // Nobody can be asked: who is only slow to come must not be taken for one that never does.
    constexpr int more_looks = 60;
    constexpr double seconds_between_looks = 1.0;
    bool goes_on = waits(stop, seconds + grace_seconds(rank));
    for (int look = 0; goes_on && look < more_looks; ++look) {
      std::vector<std::string> names;
      for (const auto& [other, ticks] : ranks_in_state(stopped_or_traced)) names.push_back(name_of(other));
      if (!names.empty())
        end_process(rank, fmt::format("after {:g} s {} had not come to where all ranks meet ({}): stopped",
                                      seconds, fmt::join(names, ", "), call));
      goes_on = waits(stop, seconds_between_looks);
    }
    if (goes_on)
      end_process(rank,
                  fmt::format("after {:g} s some rank had not come to where all ranks meet ({}); none on "
                              "{} is stopped",
                              seconds + more_looks * seconds_between_looks, call, host_name()));
  });
}

}  // namespace comigs::comm
