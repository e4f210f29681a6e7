// Sums of device memory within a node, without the host: each rank lays its numbers into a slab that the
// others read (CUDA IPC), adds a part of all, and reads the sums of the other parts.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "comigs/comm/communicator.hpp"

namespace comigs::comm {

/// Slabs are kept, one for each communicator that came, of the largest block that it had.
class DeviceSlabs {
 public:
  DeviceSlabs() = default;
  DeviceSlabs(const DeviceSlabs&) = delete;
  DeviceSlabs& operator=(const DeviceSlabs&) = delete;
  /// A rank's own slab stays until its process ends: others may still have it open.
  ~DeviceSlabs();

  /// Collective. Replaces `values`, in device memory on which nothing is queued any more, by the sums over
  /// the ranks in rank order; with `in_bfloat16` as Sums::bf16 has them. False, on every rank, where they are
  /// not of one node or cannot read each other's memory: then nothing has happened, and the first such time
  /// is told where a driver is at fault. Throws CommError.
  [[nodiscard]] bool all_sum(const Communicator& communicator, std::span<float> values, bool in_bfloat16);

 private:
  struct Slabs {
    std::size_t capacity = 0;    // in numbers
    float* own = nullptr;        // in this rank's device memory
    std::vector<float*> opened;  // by rank; null for its own
    bool refused = false;        // for good: ranks cannot read each other's
  };

  // Whether the slabs hold so many numbers, and all ranks read all of them.
  static bool all_open(const Communicator& communicator, std::size_t count, Slabs& slabs);
  static void all_close(const Communicator& communicator, Slabs& slabs);

  std::map<MPI_Comm, Slabs> slabs_;
};

}  // namespace comigs::comm
