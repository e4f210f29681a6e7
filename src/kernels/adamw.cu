#include <algorithm>

#include "adamw_element.hpp"
#include "cuda_block.cuh"

namespace comigs::kernels {

namespace {

__global__ void adamw_kernel(AdamwSlice slice, AdamwStep step) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < slice.count; i += stride)
    adamw_element<float>(slice.values[i], slice.gradients[i], slice.first_moments[i], slice.second_moments[i],
                         step);
}

}  // namespace

void adamw_device(const AdamwSlice& slice, const AdamwStep& step, void* stream) {
  if (slice.count == 0) return;
  constexpr unsigned threads = 256;
  // Enough blocks to fill any card; the loop takes the rest.
  const auto blocks =
      static_cast<unsigned>(std::min<std::size_t>((slice.count + threads - 1) / threads, 4096));
  adamw_kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(slice, step);
  check("adamw", cudaGetLastError());
}

}  // namespace comigs::kernels
