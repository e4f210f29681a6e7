// Where a rank runs and which cores are its own.
#pragma once

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
/// and each counts on one.
[[nodiscard]] Placement all_place(const Communicator& world);

}  // namespace comigs::comm
