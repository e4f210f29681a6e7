// What ranks make of their float32 blocks together, in place, in host or device memory: sums, or whatever a
// column of numbers, one a rank, is reduced to.
#pragma once

#include <cstddef>
#include <functional>
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

/// What becomes of columns: `numbers` [rank, column], row-major, in float32, to `result` [column].
using Reduce = std::function<void(std::span<const float> numbers, std::span<float> result)>;

/// Makes sums, and other reductions by columns. Owns the staging buffers, so that reducing allocates nothing
/// once a round has been made. Host memory, and for sums in `any_order` device memory under a CUDA-aware MPI,
/// is read as it is; other sums of device memory are made on the devices where the ranks are of one node and
/// read each other's memory (CUDA IPC), with the same bits; else it goes through one pinned buffer.
class Reduction {
 public:
  Reduction(Memory memory, Sums sums);
  ~Reduction();
  Reduction(Reduction&&) noexcept;
  Reduction& operator=(Reduction&&) noexcept;

  /// Collective. Replaces `values` (in the memory given at construction) by the elementwise sum over the
  /// communicator's ranks, the same bits on each; in device memory once all work queued on the device is
  /// done. Throws CommError.
  void all_sum(const Communicator& communicator, std::span<float> values);

  /// The same with what `reduce` makes of the ranks' numbers in each place. A rank reduces a part of the
  /// columns, some at a time, and all get the results: the traffic of a sum. With `bf16` numbers and results
  /// are rounded on their way.
  void all_by_columns(const Communicator& communicator, std::span<float> values, const Reduce& reduce);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace comigs::comm
