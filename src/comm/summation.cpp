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
constexpr std::size_t gather_elements = std::size_t{1} << 16;
constexpr std::size_t piece_elements = std::size_t{1} << 22;  // that ranks divide among them at a time

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

void all_sum_any_order(const Communicator& communicator, std::span<float> values) {
  for (std::size_t begin = 0; begin < values.size(); begin += largest_message) {
    const std::size_t count = std::min(largest_message, values.size() - begin);
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + begin, static_cast<int>(count), MPI_FLOAT, MPI_SUM,
                            communicator.handle()),
              "MPI_Allreduce");
  }
}

}  // namespace

struct Summation::Buffers {
  Memory memory;
  Sums sums;
  std::vector<float> gathered;
  std::vector<std::uint16_t> sent, received;
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

  void all_sum_in_rank_order(const Communicator& communicator, std::span<float> values) {
    const auto ranks = static_cast<std::size_t>(communicator.size());
    gathered.resize(ranks * gather_elements);
    for (std::size_t begin = 0; begin < values.size(); begin += gather_elements) {
      const std::size_t count = std::min(gather_elements, values.size() - begin);
      const int elements = static_cast<int>(count);
      check_mpi(MPI_Allgather(values.data() + begin, elements, MPI_FLOAT, gathered.data(), elements,
                              MPI_FLOAT, communicator.handle()),
                "MPI_Allgather");
      for (std::size_t i = 0; i < count; ++i) {
        float sum = gathered[i];
        for (std::size_t rank = 1; rank < ranks; ++rank) sum += gathered[rank * count + i];
        values[begin + i] = sum;
      }
    }
  }

  // Every rank gets all ranks' numbers of its part, adds them, and sends the sums to all: MPI has no
  // bfloat16, and a sum of its own would be rounded at every rank on the way.
  void all_sum_narrow(const Communicator& communicator, std::span<float> values) {
    const auto ranks = static_cast<std::size_t>(communicator.size());
    for (std::size_t begin = 0; begin < values.size(); begin += piece_elements) {
      const std::span piece = values.subspan(begin, std::min(piece_elements, values.size() - begin));
      const std::size_t part = (piece.size() + ranks - 1) / ranks;
      if (sent.size() < ranks * part) {
        sent.resize(ranks * part);
        received.resize(ranks * part);
      }
      std::fill(sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(ranks * part), std::uint16_t{0});
      std::ranges::transform(piece, sent.begin(), to_bfloat16);
      const int elements = static_cast<int>(part);
      check_mpi(MPI_Alltoall(sent.data(), elements, MPI_UINT16_T, received.data(), elements, MPI_UINT16_T,
                             communicator.handle()),
                "MPI_Alltoall");
      for (std::size_t i = 0; i < part; ++i) {
        float sum = 0.0f;
        for (std::size_t rank = 0; rank < ranks; ++rank) sum += from_bfloat16(received[rank * part + i]);
        sent[i] = to_bfloat16(sum);
      }
      check_mpi(MPI_Allgather(sent.data(), elements, MPI_UINT16_T, received.data(), elements, MPI_UINT16_T,
                              communicator.handle()),
                "MPI_Allgather");
      std::transform(received.begin(), received.begin() + static_cast<std::ptrdiff_t>(piece.size()),
                     piece.begin(), from_bfloat16);
    }
  }

  void all_sum_on_host(const Communicator& communicator, std::span<float> values) {
    switch (sums) {
      case Sums::any_order:
        return all_sum_any_order(communicator, values);
      case Sums::rank_order:
        return all_sum_in_rank_order(communicator, values);
      case Sums::bf16:
        return all_sum_narrow(communicator, values);
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
  if (buffers_->memory == Memory::host) {
    buffers_->all_sum_on_host(communicator, values);
  } else if (buffers_->sums == Sums::any_order && mpi_reads_device_memory()) {
    all_sum_any_order(communicator, values);
  } else {
    buffers_->all_sum_staged(communicator, values);
  }
}

}  // namespace comigs::comm
