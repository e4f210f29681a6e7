// Sums of device memory among the processes of a node, against a CUDA runtime whose device memory is shared
// memory of the system: this program has doubles of the functions that are called, which take the place of
// those in the libraries. The same bits as host memory gives, whatever fails.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "comigs/comm/reduction.hpp"
#include "comigs/kernels/rank_sum.hpp"

namespace {

// Device memory of this process, by where it begins; what it has open of others'.
struct Piece {
  std::string name;
  std::size_t bytes = 0;
};
std::map<void*, Piece> own, opened;
// A rank's own slab stays until its process ends.
struct AtTheEnd {
  ~AtTheEnd() {
    for (const auto& [memory, piece] : own) shm_unlink(piece.name.c_str());
  }
} at_the_end;
std::string failing;        // the call that fails
int opens = 0, staged = 0;  // calls that there were

void* mapped(const std::string& name, int flags, std::size_t bytes) {
  const int file = shm_open(name.c_str(), flags, 0600);
  if (file < 0) return nullptr;
  struct stat status {};
  if (bytes > 0 && ftruncate(file, static_cast<off_t>(bytes)) != 0) return nullptr;
  if (fstat(file, &status) != 0) return nullptr;
  void* memory =
      mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return memory;
}

}  // namespace

extern "C" {
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  static int number = 0;
  if (failing == "cudaMalloc") return cudaErrorMemoryAllocation;
  const std::string name = "/comigs-test-" + std::to_string(getpid()) + "-" + std::to_string(++number);
  *memory = mapped(name, O_CREAT | O_EXCL | O_RDWR, bytes);
  own[*memory] = {name, bytes};
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  const Piece piece = own.at(memory);
  shm_unlink(piece.name.c_str());
  munmap(memory, piece.bytes);
  own.erase(memory);
  return cudaSuccess;
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* memory) {
  if (failing == "cudaIpcGetMemHandle") return cudaErrorNotSupported;
  std::memset(handle->reserved, 0, sizeof handle->reserved);
  own.at(memory).name.copy(handle->reserved, sizeof handle->reserved - 1);
  return cudaSuccess;
}
cudaError_t cudaIpcOpenMemHandle(void** memory, cudaIpcMemHandle_t handle, unsigned int flags) {
  BOOST_TEST(flags == cudaIpcMemLazyEnablePeerAccess);
  ++opens;
  if (failing == "cudaIpcOpenMemHandle") return cudaErrorMapBufferObjectFailed;
  *memory = mapped(handle.reserved, O_RDWR, 0);
  if (*memory == nullptr) return cudaErrorInvalidResourceHandle;
  opened[*memory] = {handle.reserved, 0};
  return cudaSuccess;
}
cudaError_t cudaIpcCloseMemHandle(void* memory) {
  BOOST_TEST(opened.erase(memory) == 1u);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  *memory = std::malloc(bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind /*kind*/) {
  ++staged;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  BOOST_TEST((kind == cudaMemcpyDeviceToDevice && stream == nullptr));
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t /*code*/) { return "as the test has it"; }
}

namespace comigs::kernels {

void rank_sum_device(const RankSum& sum, void* /*stream*/) { rank_sum(sum); }

}  // namespace comigs::kernels

namespace comigs::comm {

namespace {

// Of another magnitude on each rank, so that the order of a sum shows in its last bits.
std::vector<float> block_of(int rank, std::size_t count, int round) {
  std::vector<float> block(count);
  for (std::size_t i = 0; i < count; ++i)
    block[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i) + 1.1 * rank + 0.7 * round) *
                                  std::pow(13.0, rank % 3));
  return block;
}

void check_as_on_the_host(const Communicator& communicator, Reduction& device, Sums sums, std::size_t count,
                          int round) {
  std::vector<float> values = block_of(communicator.rank(), count, round), expected = values;
  Reduction host(Memory::host, sums);
  device.all_sum(communicator, values);
  host.all_sum(communicator, expected);
  BOOST_TEST((values == expected), count << " numbers, round " << round);
}

// Nothing fails any more, and nothing of the test before is seen.
struct Fresh {
  Fresh() {
    failing.clear();
    opens = staged = 0;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(device_slabs, Fresh)

BOOST_AUTO_TEST_CASE(sums_are_those_of_host_memory) {
  const Communicator world = Communicator::world();
  for (const Sums sums : {Sums::rank_order, Sums::bf16}) {
    Reduction reduction(Memory::device, sums);
    for (const std::size_t count :
         {std::size_t{1}, std::size_t{3}, std::size_t{70001}, std::size_t{0}, std::size_t{5}})
      for (int round = 0; round < 3; ++round) check_as_on_the_host(world, reduction, sums, count, round);
    BOOST_TEST(opened.size() == static_cast<std::size_t>(world.size() - 1));
  }
  BOOST_TEST(staged == 0);
  BOOST_TEST(opened.empty());
}

BOOST_AUTO_TEST_CASE(a_slab_is_opened_once_for_each_communicator) {
  const Communicator world = Communicator::world();
  const std::optional<Communicator> odd = world.all_split(world.rank() % 2 == 1);
  Reduction reduction(Memory::device, Sums::rank_order);
  for (int round = 0; round < 4; ++round) {
    check_as_on_the_host(world, reduction, Sums::rank_order, 100, round);
    if (odd) check_as_on_the_host(*odd, reduction, Sums::rank_order, 60, round);
  }
  BOOST_TEST(opens == world.size() - 1 + (odd ? odd->size() - 1 : 0));
}

BOOST_AUTO_TEST_CASE(ranks_without_a_device_sum_with_the_others) {
  const Communicator world = Communicator::world();
  const bool last = world.rank() + 1 == world.size();
  Reduction reduction(last ? Memory::host : Memory::device, Sums::rank_order);
  for (int round = 0; round < 2; ++round)
    check_as_on_the_host(world, reduction, Sums::rank_order, 1000, round);
  BOOST_TEST(opens == 0);
  BOOST_TEST(staged == (last ? 0 : 4));
}

// One that cannot makes all take the way over the host, from then on without another try.
BOOST_AUTO_TEST_CASE(who_cannot_read_others_has_the_same_sums) {
  const Communicator world = Communicator::world();
  for (const char* call : {"cudaMalloc", "cudaIpcGetMemHandle", "cudaIpcOpenMemHandle"}) {
    if (world.rank() == world.size() - 1) failing = call;
    const bool fails = world.size() > 1 || std::string(call) != "cudaIpcOpenMemHandle";
    Reduction reduction(Memory::device, Sums::rank_order);
    const std::size_t before = own.size();
    staged = 0;
    for (int round = 0; round < 2; ++round)
      check_as_on_the_host(world, reduction, Sums::rank_order, 1000, round);
    BOOST_TEST(staged == (fails ? 4 : 0));
    BOOST_TEST(opened.empty() == (fails || world.size() == 1));
    if (fails) BOOST_TEST(own.size() == before);
    failing.clear();
    opens = 0;
    check_as_on_the_host(world, reduction, Sums::rank_order, 1000, 2);
    BOOST_TEST(opens == 0);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
