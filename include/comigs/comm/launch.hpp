// How this process was started, as its environment tells before there is MPI.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>

namespace comigs::comm {

/// What mpirun or srun says of this process.
struct Launch {
  int ranks = 1, rank = 0;
  bool by_mpirun = false;
  bool has_pmi = false;  ///< ranks can find each other
};
[[nodiscard]] Launch launched();

inline constexpr std::string_view stopped = "T", stopped_or_traced = "Tt";  ///< letters of proc(5)
/// World ranks of this process's own run, other than itself, that are on this machine and in one of these
/// states, by the process table, and how much processor time (in ticks) each has used.
[[nodiscard]] std::map<int, std::uint64_t> ranks_in_state(std::string_view states);

}  // namespace comigs::comm
