#include "device_slabs.hpp"

#include <algorithm>
#include <cstring>

#include "comigs/base/log.hpp"
#include "comigs/kernels/rank_sum.hpp"
#include "cuda_call.hpp"

namespace comigs::comm {

namespace {

// Other streams do not wait for this one: what they had is done when it begins, and each step is waited for.
void copy(float* to, const float* from, std::size_t count) {
  check_cuda(cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyDeviceToDevice, nullptr),
             "cudaMemcpyAsync");
}
void finish() { check_cuda(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize"); }

// What failed, for those who are told; nothing stays behind for the next call to find.
std::string failure(const char* call, cudaError_t status) {
  (void)cudaGetLastError();
  return fmt::format("{}: {}", call, cudaGetErrorString(status));
}

// A slab of its own and how others open it; empty where it cannot be made, for the reason given.
std::string make_slab(std::size_t count, float*& slab, std::string& reason) {
  cudaIpcMemHandle_t handle;
  if (const cudaError_t status = cudaMalloc(reinterpret_cast<void**>(&slab), count * sizeof(float));
      status != cudaSuccess) {
    slab = nullptr;
    reason = failure("cudaMalloc", status);
    return {};
  }
  if (const cudaError_t status = cudaIpcGetMemHandle(&handle, slab); status != cudaSuccess) {
    reason = failure("cudaIpcGetMemHandle", status);
    return {};
  }
  return {reinterpret_cast<const char*>(&handle), sizeof handle};
}

float* open_slab(const std::string& handle, std::string& reason) {
  if (handle.empty()) return nullptr;
  cudaIpcMemHandle_t bytes;
  std::memcpy(&bytes, handle.data(), sizeof bytes);
  void* slab = nullptr;
  const cudaError_t status = cudaIpcOpenMemHandle(&slab, bytes, cudaIpcMemLazyEnablePeerAccess);
  if (status == cudaSuccess) return static_cast<float*>(slab);
  reason = failure("cudaIpcOpenMemHandle", status);
  return nullptr;
}

// Whether all could, and a word on those that could not.
bool all_could(const Communicator& communicator, const std::string& reason) {
  const std::vector<std::string> reasons = communicator.all_gather(reason);
  const auto refused = std::ranges::find_if(reasons, [](const std::string& one) { return !one.empty(); });
  if (refused == reasons.end()) return true;
  if (communicator.is_first())
    spdlog::warn("sums of GPU memory go through the host: {} ({})", *refused,
                 communicator.name_of(static_cast<int>(refused - reasons.begin())));
  return false;
}

}  // namespace

DeviceSlabs::~DeviceSlabs() {
  for (auto& [handle, slabs] : slabs_)
    for (float* slab : slabs.opened)
      if (slab != nullptr) cudaIpcCloseMemHandle(slab);
}

void DeviceSlabs::all_close(const Communicator& communicator, Slabs& slabs) {
  for (float* slab : slabs.opened)
    if (slab != nullptr) cudaIpcCloseMemHandle(slab);
  slabs.opened.clear();
  communicator.all_meet();  // nobody has it open any more
  check_cuda(cudaFree(slabs.own), "cudaFree");
  slabs.own = nullptr;
  slabs.capacity = 0;
}

bool DeviceSlabs::all_open(const Communicator& communicator, std::size_t count, Slabs& slabs) {
  if (slabs.refused) return false;
  if (count <= slabs.capacity) return true;
  if (slabs.own != nullptr) {
    all_close(communicator, slabs);
  } else {
    const bool apart = communicator.size() > kernels::RankSum::most_ranks ||
                       communicator.all_split_by_node().size() != communicator.size();
    slabs.refused = communicator.all_sum(std::int64_t{apart}) > 0;
    if (slabs.refused) return false;
  }
  std::string reason;
  const std::vector<std::string> handles = communicator.all_gather(make_slab(count, slabs.own, reason));
  for (int rank = 0; rank < communicator.size(); ++rank)
    slabs.opened.push_back(
        rank == communicator.rank() ? nullptr : open_slab(handles[static_cast<std::size_t>(rank)], reason));
  slabs.capacity = count;
  slabs.refused = !all_could(communicator, reason);
  if (slabs.refused) all_close(communicator, slabs);
  return !slabs.refused;
}

bool DeviceSlabs::all_sum(const Communicator& communicator, std::span<float> values, bool in_bfloat16) {
  if (values.empty()) return true;
  Slabs& slabs = slabs_[communicator.handle()];
  if (!all_open(communicator, values.size(), slabs)) return false;
  const auto ranks = static_cast<std::size_t>(communicator.size()),
             own = static_cast<std::size_t>(communicator.rank());
  const std::size_t part = (values.size() + ranks - 1) / ranks;
  const auto begin = [&](std::size_t rank) { return std::min(rank * part, values.size()); };
  const auto slab = [&](std::size_t rank) { return rank == own ? slabs.own : slabs.opened[rank]; };
  copy(slabs.own, values.data(), values.size());
  finish();
  communicator.all_meet();
  // The sums go where the own numbers were, which nobody else reads.
  kernels::RankSum sum{.ranks = communicator.size(),
                       .count = static_cast<std::int64_t>(begin(own + 1) - begin(own)),
                       .numbers = {},
                       .sums = slabs.own + begin(own),
                       .in_bfloat16 = in_bfloat16};
  for (std::size_t rank = 0; rank < ranks; ++rank) sum.numbers[rank] = slab(rank) + begin(own);
  kernels::rank_sum_device(sum, nullptr);
  finish();
  communicator.all_meet();
  for (std::size_t rank = 0; rank < ranks; ++rank)
    copy(values.data() + begin(rank), slab(rank) + begin(rank), begin(rank + 1) - begin(rank));
  finish();
  communicator.all_meet();  // nobody writes into a slab that others still read
  return true;
}

}  // namespace comigs::comm
