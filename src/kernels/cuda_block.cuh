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
  template <class Of>
  __device__ void transpose(const Of& of, Local<std::uint32_t>& to) const {
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(to.own) : "r"(of(thread())));
  }
  template <class Sum, class A, class B>
  __device__ void multiply_add(const Sum& sum, const A& a, const B& b) const {
    const Pack<std::uint32_t, 2> rows = a(thread());
    auto& to = sum(thread()).at;
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, "
        "%3};"
        : "+f"(to[0]), "+f"(to[1]), "+f"(to[2]), "+f"(to[3])
        : "r"(rows.at[0]), "r"(rows.at[1]), "r"(b(thread())));
  }

 private:
  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
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
