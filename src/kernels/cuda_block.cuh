// The Block of block.hpp on the device, and how its kernels are launched.
#pragma once

#include <cuda_runtime_api.h>

#include "block.hpp"
#include "comigs/kernels/device.hpp"

namespace comigs::kernels {

template <class T>
struct CudaLocal {
  __device__ T& operator[](int) { return own; }
  T own;
};

struct CudaWarp {
  template <class T>
  using Local = CudaLocal<T>;

  __device__ int index() const { return static_cast<int>(threadIdx.x) / warp_lanes; }

  template <class Each>
  __device__ void each(const Each& f) const {
    f(static_cast<int>(threadIdx.x));
  }
  template <class Each>
  __device__ void phase(const Each& f) const {
    f(static_cast<int>(threadIdx.x));
    __syncwarp();
  }
  __device__ unsigned ballot(Local<bool>& flag) const { return __ballot_sync(0xFFFFFFFFu, flag.own); }
  __device__ void exchange(Local<float>& from, Local<float>& to, int bit) const {
    to.own = __shfl_xor_sync(0xFFFFFFFFu, from.own, bit);
  }
  template <int count>
  __device__ void exchange(Local<Pack<float, count>>& from, Local<Pack<float, count>>& to, int bit) const {
    for (int i = 0; i < count; ++i) to.own.at[i] = __shfl_xor_sync(0xFFFFFFFFu, from.own.at[i], bit);
  }
};

template <int count>
struct CudaBlock {
  static constexpr int threads = count;
  template <class T>
  using Local = CudaLocal<T>;

  __device__ float* memory() const {
    extern __shared__ float4 shared[];  // aligned for the widest load
    return reinterpret_cast<float*>(shared);
  }
  template <class Each>
  __device__ void each(const Each& f) const {
    f(static_cast<int>(threadIdx.x));
  }
  template <class Each>
  __device__ void phase(const Each& f) const {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }
  template <class Each>
  __device__ void each_warp(const Each& f) const {
    CudaWarp warp;
    f(warp);
    __syncthreads();
  }
  __device__ void exchange(Local<float>& from, Local<float>& to, int bit) const {
    CudaWarp().exchange(from, to, bit);
  }
};

inline void check(const char* kernel, cudaError_t status) {
  if (status != cudaSuccess) fail_launch(kernel, cudaGetErrorString(status));
}

}  // namespace comigs::kernels
