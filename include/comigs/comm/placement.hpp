// Where a rank runs, which cores are its own, and how much memory there is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "comigs/comm/communicator.hpp"

namespace comigs::comm {

struct Placement {
  std::string host;
  int local_rank = 0;  ///< among the ranks of its node
  int local_size = 1;
  int cores = 1;                ///< cores that this rank may count on
  bool oversubscribed = false;  ///< more ranks than cores
};

/// Collective. Ranks of a node that were given the same set of cores divide it evenly and bind to their part;
/// ranks that the launcher has bound apart keep what they have. With more ranks than cores nothing is bound
/// and each counts on one. A container's quota of processor time counts as so many cores, rounded down;
/// SLURM_CPUS_PER_TASK, where a batch system sets it, as the most that a rank takes.
[[nodiscard]] Placement all_place(const Communicator& world);

/// Local. The same for a process that is alone and needs no MPI.
[[nodiscard]] Placement place_alone();
[[nodiscard]] std::string host_name();

/// Local. How many cores each of `ranks` ranks on this node could count on, started as this process was; 0:
/// they are more than the cores. Needs no MPI.
[[nodiscard]] int share_of_cores(int ranks);
/// Local. How many cores this process's affinity and quota leave to it and to others started as it was.
[[nodiscard]] int cores_of_node();

/// Where the control groups of this process are listed, and where their files are.
struct ControlGroups {
  std::filesystem::path groups = "/proc/self/cgroup", mounted = "/sys/fs/cgroup";
};
/// How many cores' time its control groups, and those around them, leave this process; nothing where there is
/// no limit.
[[nodiscard]] std::optional<double> quota_of_cores(const ControlGroups& where = {});
/// Bytes of memory that this machine has, and no more than the control groups leave this process.
[[nodiscard]] std::int64_t memory_bytes(const ControlGroups& where = {});

}  // namespace comigs::comm
