// A planned run as a person or a program reads it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comigs/job/cost.hpp"
#include "comigs/job/job.hpp"

namespace comigs::app {

/// Wall-clock seconds on this machine, all users at once.
struct PlannedTime {
  double start = 0.0;          ///< up to the first round, its evaluation included
  std::vector<double> rounds;  ///< [user] a round, mean over the run
  std::string how;             ///< for readers: threads, speed
};

struct Plan {
  const job::Job& job;
  std::string place;  ///< "cpu", "GPU"
  int threads = 0;    ///< of each rank
  std::vector<job::Cost> costs;
  std::int64_t memory_of_node = 0, memory_of_machine = 0;  ///< bytes
  std::optional<PlannedTime> time;                         ///< none: not measured
  std::vector<std::string> problems;
};

[[nodiscard]] std::string plan_as_text(const Plan& plan);
/// One JSON object; seconds are null where they were not measured.
[[nodiscard]] std::string plan_as_json(const Plan& plan);

}  // namespace comigs::app
