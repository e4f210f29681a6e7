// What a run's file says of the run, and who computes it.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "comigs/comm/communicator.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/config.hpp"
#include "comigs/job/job.hpp"
#include "comigs/results/results_file.hpp"
#include "comigs/run/roster.hpp"

namespace comigs::run {

/// What this rank knows of how a job is computed.
struct Surroundings {
  const config::Config& config;  ///< the job's, with its users' micro-batches as they fit their memory
  const comm::Placement& placement;
  c10::Device device;
  std::string base_digest;  ///< of the weights that were found
};

/// Collective: gathers what only each rank knows of itself. Tells once where users compute on unlike
/// processors or with unlike libraries.
[[nodiscard]] results::RunDescription all_describe(const comm::Communicator& world, const Roster& roster,
                                                   const job::Job& job, const Surroundings& here);

}  // namespace comigs::run
