// Calls of CUDA's runtime that are not to fail.
#pragma once

#include <cuda_runtime_api.h>

#include "comigs/base/error.hpp"

namespace comigs::comm {

/// Throws CommError naming the call and the reason.
inline void check_cuda(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CommError(fmt::format("{} failed: {}", call, cudaGetErrorString(status)));
}

}  // namespace comigs::comm
