// Sums of float32 blocks over a communicator, in place, in host or device memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "comigs/comm/communicator.hpp"

namespace comigs::comm {

enum class Memory { host, device };

/// How the numbers of the ranks are added, always in float32.
enum class Sums {
  rank_order,  ///< rank 0's first, then rank 1's, ...: the bits do not depend on where ranks run
  any_order,   ///< by MPI_Allreduce, in place: its algorithm, and so the last bits, may change with the
               ///< placement
  bf16,        ///< in rank order, with numbers and sums rounded to bfloat16 on their way: half the bytes
};

/// Makes sums. Owns the staging buffers, so that summing allocates nothing once a round has been made. Host
/// memory, and for `any_order` device memory under a CUDA-aware MPI, is read as it is; other device memory
/// goes through one pinned buffer.
class Summation {
 public:
  Summation(Memory memory, Sums sums);
  ~Summation();
  Summation(Summation&&) noexcept;
  Summation& operator=(Summation&&) noexcept;

  /// Collective. Replaces `values` (in the memory given at construction) by the elementwise sum over the
  /// communicator's ranks, the same bits on each; in device memory once all work queued on the device is
  /// done. Throws CommError.
  void all_sum(const Communicator& communicator, std::span<float> values);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace comigs::comm
