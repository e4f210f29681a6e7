#include "cuda_block.cuh"
#include "mixture_plan.hpp"

namespace comigs::kernels {

namespace {

using TileBlock = CudaBlock<tile_threads>;

// As many blocks to a processor as its memory has room for, but for gated activations of ranks above 8.
#if __CUDA_ARCH__ >= 900
constexpr int tile_blocks = 3;
#else
constexpr int tile_blocks = 2;
#endif

// A column tile's neighbours in the grid have the same tokens: they read neighbouring memory at the same
// time.
template <class Pass>
__global__ void __launch_bounds__(tile_threads, tile_blocks) forward_kernel(Pass pass) {
  TileBlock block;
  mixture_forward_tile(block, pass, blockIdx.x, blockIdx.y);
}

template <class Pass>
__global__ void __launch_bounds__(tile_threads, tile_blocks) backward_kernel(Pass pass) {
  TileBlock block;
  mixture_backward_part(block, pass, blockIdx.x, blockIdx.y);
}

template <class Pass>
__global__ void finish_kernel(Pass pass, std::int64_t elements) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < elements) finish(pass, i);
}

// The tiles in `rows` times as many blocks as there are column tiles, then what takes their sums together.
template <class Pass>
void launch(const char* name, void (*kernel)(Pass), const Pass& pass, std::int64_t rows, void* stream) {
  auto* const queue = static_cast<cudaStream_t>(stream);
  const auto bytes = static_cast<int>(memory_bytes(typename Pass::Way(), pass.in.shape));
  const auto columns = static_cast<unsigned>(column_tiles(pass.in.shape));
  if (rows > 0) {
    check(name, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<dim3(columns, static_cast<unsigned>(rows)), tile_threads, static_cast<std::size_t>(bytes),
             queue>>>(pass);
    check(name, cudaGetLastError());
  }
  constexpr unsigned threads = 256;
  const std::int64_t elements = finish_elements(pass);
  if (elements == 0) return;
  finish_kernel<<<static_cast<unsigned>(tiles(elements, threads)), threads, 0, queue>>>(pass, elements);
  check(name, cudaGetLastError());
}

template <class Pass>
void forward(const Pass& pass, void* stream) {
  launch("mixture_forward", forward_kernel<Pass>, pass, token_tiles(pass.in.shape), stream);
}
template <class Pass>
void backward(const Pass& pass, void* stream) {
  launch("mixture_backward", backward_kernel<Pass>, pass, pass.parts, stream);
}

}  // namespace

template <class Number>
void mixture_forward_device(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out,
                            void* workspace, void* stream) {
  with_activation(in.shape.activation, [&](auto activation) {
    using Act = decltype(activation);
    with_way(in, {in.hidden, out.mixed},
             [&](auto way) { forward(forward_pass<Act, decltype(way)>(in, out, workspace), stream); });
  });
}

template <class Number>
void mixture_backward_device(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients,
                             void* workspace, void* stream) {
  with_activation(in.shape.activation, [&](auto activation) {
    using Act = decltype(activation);
    with_way(in, {in.hidden, gradients.d_mixed, gradients.d_hidden}, [&](auto way) {
      backward(backward_pass<Act, decltype(way)>(in, gradients, workspace), stream);
    });
  });
}

template void mixture_forward_device(const MixtureInputs<float>&, const MixtureOutputs<float>&, void*, void*);
template void mixture_forward_device(const MixtureInputs<Bfloat16>&, const MixtureOutputs<Bfloat16>&, void*,
                                     void*);
template void mixture_backward_device(const MixtureInputs<float>&, const MixtureGradients<float>&, void*,
                                      void*);
template void mixture_backward_device(const MixtureInputs<Bfloat16>&, const MixtureGradients<Bfloat16>&,
                                      void*, void*);

}  // namespace comigs::kernels
