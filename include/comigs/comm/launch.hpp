// How this process was started, as its environment tells before there is MPI.
#pragma once

#include <vector>

namespace comigs::comm {

/// What mpirun or srun says of this process.
struct Launch {
  int ranks = 1, rank = 0;
  bool by_mpirun = false;
  bool has_pmi = false;  ///< ranks can find each other
};
[[nodiscard]] Launch launched();

/// World ranks of this process's own run that are on this machine and stopped, by the process table.
[[nodiscard]] std::vector<int> stopped_ranks();

}  // namespace comigs::comm
