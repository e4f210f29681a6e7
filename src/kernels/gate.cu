#include "cuda_block.cuh"
#include "gate_block.hpp"
#include "gate_token.hpp"

namespace comigs::kernels {

namespace {

constexpr unsigned threads = 128;  // a thread a token: small blocks spread few tokens over many processors

unsigned blocks(const GateShape& shape) {
  return static_cast<unsigned>((shape.tokens + threads - 1) / threads);
}

__device__ std::int64_t own_token() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

__global__ void gate_forward_kernel(GateForward pass) {
  if (own_token() < pass.shape.tokens) gate_forward_token<float>(pass, own_token());
}

__global__ void gate_backward_kernel(GateBackward pass) {
  if (own_token() < pass.shape.tokens) gate_backward_token<float>(pass, own_token());
}

using LoadBlock = CudaBlock<256>;

__global__ void gate_load_kernel(GateForward pass, GateLoad load) {
  LoadBlock block;
  gate_load_expert(block, pass, load, blockIdx.x);
}

}  // namespace

void gate_forward_device(const GateForward& pass, void* stream) {
  if (pass.shape.tokens == 0) return;
  gate_forward_kernel<<<blocks(pass.shape), threads, 0, static_cast<cudaStream_t>(stream)>>>(pass);
  check("gate_forward", cudaGetLastError());
}

void gate_backward_device(const GateBackward& pass, void* stream) {
  if (pass.shape.tokens == 0) return;
  gate_backward_kernel<<<blocks(pass.shape), threads, 0, static_cast<cudaStream_t>(stream)>>>(pass);
  check("gate_backward", cudaGetLastError());
}

void gate_load_device(const GateForward& pass, const GateLoad& load, void* stream) {
  constexpr auto memory = sizeof(double) * LoadBlock::threads;
  gate_load_kernel<<<static_cast<unsigned>(pass.shape.experts), LoadBlock::threads, memory,
                     static_cast<cudaStream_t>(stream)>>>(pass, load);
  check("gate_load", cudaGetLastError());
}

}  // namespace comigs::kernels
