#include "comigs/comm/summation.hpp"

#include <algorithm>
#include <vector>

#include "comigs/base/error.hpp"
#include "narrow.hpp"

#ifdef COMIGS_CUDA
#include <cuda_runtime_api.h>
#endif
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

namespace comigs::comm {

namespace {

constexpr std::size_t largest_message = std::size_t{1} << 28;
constexpr std::size_t piece_elements = std::size_t{1} << 20;  // that ranks divide among them at a time

bool mpi_reads_device_memory() {
#ifdef MPIX_CUDA_AWARE_SUPPORT
  return MPIX_Query_cuda_support() == 1;
#else
  return false;
#endif
}

#ifdef COMIGS_CUDA
void check_cuda(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CommError(fmt::format("{} failed: {}", call, cudaGetErrorString(status)));
}
#endif

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

// Sums in rank order: every rank gets all ranks' numbers of its part of a piece, adds them, and sends the
// sums to all. That is the traffic of a ring's MPI_Allreduce, whose order of adding depends on where ranks
// run.
template <class Wire>
class OrderedSum {
 public:
  void all_sum(const Communicator& communicator, std::span<float> values) {
    for (std::size_t begin = 0; begin < values.size(); begin += piece_elements)
      all_sum_piece(communicator, values.subspan(begin, std::min(piece_elements, values.size() - begin)));
  }

 private:
  void all_sum_piece(const Communicator& communicator, std::span<float> piece) {
    const auto ranks = static_cast<std::size_t>(communicator.size());
    const std::size_t part = (piece.size() + ranks - 1) / ranks;
    const int elements = static_cast<int>(part);
    sent_.resize(std::max(sent_.size(), ranks * part));
    received_.resize(sent_.size());
    const auto end = std::ranges::transform(piece, sent_.begin(), Wire::pack).out;
    std::fill(end, sent_.begin() + static_cast<std::ptrdiff_t>(ranks * part), typename Wire::Type{});
    communicator.all_finish("MPI_Ialltoall", [&](MPI_Request* request) {
      return MPI_Ialltoall(sent_.data(), elements, Wire::mpi(), received_.data(), elements, Wire::mpi(),
                           communicator.handle(), request);
    });
    for (std::size_t i = 0; i < part; ++i) {
      float sum = Wire::unpack(received_[i]);
      for (std::size_t rank = 1; rank < ranks; ++rank) sum += Wire::unpack(received_[rank * part + i]);
      sent_[i] = Wire::pack(sum);
    }
    communicator.all_finish("MPI_Iallgather", [&](MPI_Request* request) {
      return MPI_Iallgather(sent_.data(), elements, Wire::mpi(), received_.data(), elements, Wire::mpi(),
                            communicator.handle(), request);
    });
    std::transform(received_.begin(), received_.begin() + static_cast<std::ptrdiff_t>(piece.size()),
                   piece.begin(), Wire::unpack);
  }

  std::vector<typename Wire::Type> sent_, received_;
};

}  // namespace

struct Summation::Buffers {
  Memory memory;
  Sums sums;
  OrderedSum<Whole> whole;
  OrderedSum<Half> half;
  float* pinned = nullptr;
  std::size_t pinned_elements = 0;

  Buffers(Memory where, Sums how) : memory(where), sums(how) {}
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
#ifdef COMIGS_CUDA
    cudaFreeHost(pinned);
#endif
  }

  void all_sum_on_host(const Communicator& communicator, std::span<float> values) {
    switch (sums) {
      case Sums::any_order:
        return all_sum_any_order(communicator, values, Memory::host);
      case Sums::rank_order:
        return whole.all_sum(communicator, values);
      case Sums::bf16:
        return half.all_sum(communicator, values);
    }
  }

  void all_sum_staged(const Communicator& communicator, [[maybe_unused]] std::span<float> values) {
#ifdef COMIGS_CUDA
    if (pinned_elements < values.size()) {
      check_cuda(cudaFreeHost(pinned), "cudaFreeHost");
      pinned = nullptr;
      check_cuda(cudaMallocHost(reinterpret_cast<void**>(&pinned), values.size_bytes()), "cudaMallocHost");
      pinned_elements = values.size();
    }
    check_cuda(cudaMemcpy(pinned, values.data(), values.size_bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    all_sum_on_host(communicator, {pinned, values.size()});
    check_cuda(cudaMemcpy(values.data(), pinned, values.size_bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
#else
    (void)communicator;
    throw CommError("this comigs was built without CUDA and cannot sum device memory");
#endif
  }
};

Summation::Summation(Memory memory, Sums sums) : buffers_(std::make_unique<Buffers>(memory, sums)) {}
Summation::~Summation() = default;
Summation::Summation(Summation&&) noexcept = default;
Summation& Summation::operator=(Summation&&) noexcept = default;

void Summation::all_sum(const Communicator& communicator, std::span<float> values) {
  if (buffers_->memory == Memory::host) return buffers_->all_sum_on_host(communicator, values);
#ifdef COMIGS_CUDA
  // Neither MPI nor a copy waits for the streams that these values may still be written on.
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
#endif
  if (buffers_->sums == Sums::any_order && mpi_reads_device_memory()) {
    all_sum_any_order(communicator, values, Memory::device);
  } else {
    buffers_->all_sum_staged(communicator, values);
  }
}

}  // namespace comigs::comm
