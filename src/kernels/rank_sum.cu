#include <algorithm>

#include "cuda_block.cuh"
#include "rank_sum_element.hpp"

namespace comigs::kernels {

namespace {

__global__ void rank_sum_kernel(RankSum sum) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < sum.count; i += stride)
    rank_sum_element(sum, i);
}

}  // namespace

void rank_sum_device(const RankSum& sum, void* stream) {
  if (sum.count == 0) return;
  constexpr unsigned threads = 256;
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>((sum.count + threads - 1) / threads, 4096));
  rank_sum_kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(sum);
  check("rank_sum", cudaGetLastError());
}

}  // namespace comigs::kernels
