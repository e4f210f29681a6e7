#include "comigs/comm/reduction.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include "comigs/base/error.hpp"
#include "narrow.hpp"

#ifdef COMIGS_CUDA
#include "cuda_call.hpp"
#include "device_slabs.hpp"
#endif
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

namespace comigs::comm {

namespace {

constexpr std::size_t largest_message = std::size_t{1} << 28;
constexpr std::size_t piece_elements = std::size_t{1} << 20;  // that ranks divide among them at a time
constexpr std::size_t columns_at_a_time = 1024;               // that a rank reduces

bool mpi_reads_device_memory() {
#ifdef MPIX_CUDA_AWARE_SUPPORT
  return MPIX_Query_cuda_support() == 1;
#else
  return false;
#endif
}

void all_sum_any_order(const Communicator& communicator, std::span<float> values, Memory memory) {
  for (std::size_t begin = 0; begin < values.size(); begin += largest_message) {
    float* piece = values.data() + begin;
    const int count = static_cast<int>(std::min(largest_message, values.size() - begin));
    if (memory == Memory::host) {
      communicator.all_finish("MPI_Iallreduce", [&](MPI_Request* request) {
        return MPI_Iallreduce(MPI_IN_PLACE, piece, count, MPI_FLOAT, MPI_SUM, communicator.handle(), request);
      });
    } else {  // of which MPI's nonblocking sums know nothing
      communicator.all_guarded("MPI_Allreduce", [&] {
        return MPI_Allreduce(MPI_IN_PLACE, piece, count, MPI_FLOAT, MPI_SUM, communicator.handle());
      });
    }
  }
}

// How a number travels.
struct Whole {
  using Type = float;
  static MPI_Datatype mpi() { return MPI_FLOAT; }
  static float pack(float value) { return value; }
  static float unpack(float value) { return value; }
};
struct Half {
  using Type = std::uint16_t;
  static MPI_Datatype mpi() { return MPI_UINT16_T; }
  static std::uint16_t pack(float value) { return to_bfloat16(value); }
  static float unpack(std::uint16_t bits) { return from_bfloat16(bits); }
};

// Rank 0's number first, then rank 1's, ...
void add_in_rank_order(std::span<const float> numbers, std::span<float> result) {
  const std::size_t columns = result.size();
  std::ranges::copy(numbers.first(columns), result.begin());
  for (std::size_t row = columns; row < numbers.size(); row += columns)
    for (std::size_t i = 0; i < columns; ++i) result[i] += numbers[row + i];
}

// Every rank gets all ranks' numbers of its part of a piece, reduces them, and sends the results to all. For
// a sum that is the traffic of a ring's MPI_Allreduce, whose order of adding depends on where ranks run.
template <class Wire>
class Columns {
 public:
  void all_reduce(const Communicator& communicator, std::span<float> values, const Reduce& reduce) {
    for (std::size_t begin = 0; begin < values.size(); begin += piece_elements)
      all_reduce_piece(communicator, values.subspan(begin, std::min(piece_elements, values.size() - begin)),
                       reduce);
  }

 private:
  using Number = Wire::Type;

  void all_reduce_piece(const Communicator& communicator, std::span<float> piece, const Reduce& reduce) {
    const auto ranks = static_cast<std::size_t>(communicator.size()),
               rank = static_cast<std::size_t>(communicator.rank());
    const std::size_t part = (piece.size() + ranks - 1) / ranks;
    const int elements = static_cast<int>(part);
    sent_.resize(std::max(sent_.size(), ranks * part));
    received_.resize(sent_.size());
    const auto end = std::ranges::transform(piece, sent_.begin(), Wire::pack).out;
    std::fill(end, sent_.begin() + static_cast<std::ptrdiff_t>(ranks * part), Number{});
    communicator.all_finish("MPI_Ialltoall", [&](MPI_Request* request) {
      return MPI_Ialltoall(sent_.data(), elements, Wire::mpi(), received_.data(), elements, Wire::mpi(),
                           communicator.handle(), request);
    });
    // The last ranks' parts may be shorter.
    const std::size_t own = std::min(part, piece.size() - std::min(piece.size(), rank * part));
    for (std::size_t begin = 0; begin < own; begin += columns_at_a_time)
      reduce_columns(begin, std::min(columns_at_a_time, own - begin), part, ranks, reduce);
    communicator.all_finish("MPI_Iallgather", [&](MPI_Request* request) {
      return MPI_Iallgather(sent_.data(), elements, Wire::mpi(), received_.data(), elements, Wire::mpi(),
                            communicator.handle(), request);
    });
    std::transform(received_.begin(), received_.begin() + static_cast<std::ptrdiff_t>(piece.size()),
                   piece.begin(), Wire::unpack);
  }

  // Of `received_` [rank, part] into `sent_` [part].
  void reduce_columns(std::size_t begin, std::size_t count, std::size_t part, std::size_t ranks,
                      const Reduce& reduce) {
    numbers_.resize(ranks * count);
    results_.resize(count);
    for (std::size_t rank = 0; rank < ranks; ++rank)
      std::ranges::transform(std::span(received_).subspan(rank * part + begin, count),
                             numbers_.begin() + static_cast<std::ptrdiff_t>(rank * count), Wire::unpack);
    reduce(numbers_, results_);
    std::ranges::transform(results_, sent_.begin() + static_cast<std::ptrdiff_t>(begin), Wire::pack);
  }

  std::vector<Number> sent_, received_;
  std::vector<float> numbers_, results_;  // of some columns
};

}  // namespace

struct Reduction::Buffers {
  Memory memory;
  Sums sums;
  Columns<Whole> whole;
  Columns<Half> half;
  float* pinned = nullptr;
  std::size_t pinned_elements = 0;
  std::map<MPI_Comm, bool> on_devices;  // whether all ranks' values are
#ifdef COMIGS_CUDA
  DeviceSlabs slabs;
#endif

  Buffers(Memory where, Sums how) : memory(where), sums(how) {}
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
#ifdef COMIGS_CUDA
    cudaFreeHost(pinned);
#endif
  }

  // Neither MPI nor a copy waits for the streams that these values may still be written on.
  void wait_for_device() const {
#ifdef COMIGS_CUDA
    if (memory == Memory::device) check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
#endif
  }

  // Collective. Sums in rank order on the devices, where all ranks have one and read each other's memory;
  // false, on every rank: they do not.
  bool all_sum_on_devices(const Communicator& communicator, std::span<float> values) {
    if (!all_on_devices(communicator)) return false;
#ifdef COMIGS_CUDA
    return slabs.all_sum(communicator, values, sums == Sums::bf16);
#else
    return false;
#endif
  }

  // Collective; asked once for each communicator.
  bool all_on_devices(const Communicator& communicator) {
    const auto known = on_devices.find(communicator.handle());
    if (known != on_devices.end()) return known->second;
    return on_devices[communicator.handle()] =
               communicator.all_sum(std::int64_t{memory == Memory::host}) == 0;
  }

  // Does `work` to the values where the host reads and writes them.
  template <class Work>
  void on_host(std::span<float> values, const Work& work) {
    if (memory == Memory::host) return work(values);
#ifdef COMIGS_CUDA
    if (pinned_elements < values.size()) {
      check_cuda(cudaFreeHost(pinned), "cudaFreeHost");
      pinned = nullptr;
      check_cuda(cudaMallocHost(reinterpret_cast<void**>(&pinned), values.size_bytes()), "cudaMallocHost");
      pinned_elements = values.size();
    }
    check_cuda(cudaMemcpy(pinned, values.data(), values.size_bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    work(std::span<float>(pinned, values.size()));
    check_cuda(cudaMemcpy(values.data(), pinned, values.size_bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
#else
    throw CommError("this comigs was built without CUDA and cannot sum device memory");
#endif
  }
};

Reduction::Reduction(Memory memory, Sums sums) : buffers_(std::make_unique<Buffers>(memory, sums)) {}
Reduction::~Reduction() = default;
Reduction::Reduction(Reduction&&) noexcept = default;
Reduction& Reduction::operator=(Reduction&&) noexcept = default;

void Reduction::all_sum(const Communicator& communicator, std::span<float> values) {
  buffers_->wait_for_device();
  if (buffers_->sums != Sums::any_order) {
    if (!buffers_->all_sum_on_devices(communicator, values))
      all_by_columns(communicator, values, add_in_rank_order);
    return;
  }
  if (buffers_->memory == Memory::host || mpi_reads_device_memory())
    return all_sum_any_order(communicator, values, buffers_->memory);
  buffers_->on_host(values,
                    [&](std::span<float> staged) { all_sum_any_order(communicator, staged, Memory::host); });
}

void Reduction::all_by_columns(const Communicator& communicator, std::span<float> values,
                               const Reduce& reduce) {
  buffers_->wait_for_device();
  buffers_->on_host(values, [&](std::span<float> staged) {
    if (buffers_->sums == Sums::bf16) return buffers_->half.all_reduce(communicator, staged, reduce);
    buffers_->whole.all_reduce(communicator, staged, reduce);
  });
}

}  // namespace comigs::comm
