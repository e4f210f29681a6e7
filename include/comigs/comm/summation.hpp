// Sums of float32 blocks over a communicator, in place, in host or device memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "comigs/comm/communicator.hpp"

namespace comigs::comm {

enum class Memory { host, device };

/// How sums are made. Owns the staging buffers, so that summing allocates nothing once a round has been made.
///
/// Host memory, and device memory under a CUDA-aware MPI, is summed in place by MPI_Allreduce; other device
/// memory goes through one pinned buffer. `rank_order` adds rank 0's numbers first, then rank 1's, ...: the
/// bits then do not depend on the algorithm that MPI picks for a placement; it costs the traffic of an
/// MPI_Allgather.
class Summation {
 public:
  Summation(Memory memory, bool rank_order);
  ~Summation();
  Summation(Summation&&) noexcept;
  Summation& operator=(Summation&&) noexcept;

  /// Collective. Replaces `values` (in the memory given at construction; device work on it must be finished)
  /// by the elementwise sum over the communicator's ranks, the same bits on each. Throws CommError.
  void all_sum(const Communicator& communicator, std::span<float> values);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace comigs::comm
