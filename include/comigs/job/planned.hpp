// A job as it would go on this machine, all users at once: what `comigs plan` tells.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comigs/job/cost.hpp"
#include "comigs/job/job.hpp"

namespace comigs::job {

/// Wall-clock seconds.
struct PlannedTime {
  double start = 0.0;          ///< up to the first round, its evaluation included
  std::vector<double> rounds;  ///< [user] a round, mean over the run
  std::string how;             ///< for readers: threads, speed

  /// Of a round of all users.
  [[nodiscard]] double round() const;
  [[nodiscard]] double total(std::int64_t number_of_rounds) const;
};

struct Plan {
  const Job& job;
  std::string place;  ///< "cpu", "GPU"
  int threads = 0;    ///< of each rank
  std::vector<Cost> costs;
  std::int64_t memory_of_node = 0, memory_of_machine = 0;  ///< bytes
  std::optional<PlannedTime> time;                         ///< none: it cannot run here
  std::vector<std::string> problems;

  /// The options with what the method, the budgets and this machine have made of them.
  [[nodiscard]] config::Config as_it_acts() const;
};

/// Local; keeps a reference to the job. Sets LibTorch up (`choose_device`: once a process, before any other
/// use), loads the base and runs a few steps where the job can run here. Throws DataError, ConfigError.
[[nodiscard]] Plan plan(const Job& job);
Plan plan(Job&&) = delete;

}  // namespace comigs::job
