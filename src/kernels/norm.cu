#include "cuda_block.cuh"
#include "norm_block.hpp"

namespace comigs::kernels {

namespace {

using RowsBlock = CudaBlock<128>;  // a warp a row
constexpr int packed = 4;

// Rows begin where the first one does, or a multiple of the width from there; a reader lies anywhere in the
// block of a user's parameters.
bool in_packs(const NormShape& shape, const float* reader) {
  return shape.width % packed == 0 &&
         reinterpret_cast<std::uintptr_t>(reader) % sizeof(Pack<float, packed>) == 0;
}

unsigned blocks(const NormShape& shape) {
  constexpr std::int64_t rows = RowsBlock::threads / warp_lanes;
  return static_cast<unsigned>((shape.rows + rows - 1) / rows);
}

template <int together, class Number>
__global__ void __launch_bounds__(RowsBlock::threads) norm_forward_kernel(NormForward<Number> pass) {
  RowsBlock block;
  norm_forward_block<together>(block, pass, blockIdx.x);
}
template <int together, class Number>
__global__ void __launch_bounds__(RowsBlock::threads) norm_backward_kernel(NormBackward<Number> pass) {
  RowsBlock block;
  norm_backward_block<together>(block, pass, blockIdx.x);
}

}  // namespace

template <class Number>
void norm_forward_device(const NormForward<Number>& pass, void* stream) {
  if (pass.shape.rows == 0) return;
  const auto kernel = in_packs(pass.shape, pass.reader) ? norm_forward_kernel<packed, Number>
                                                        : norm_forward_kernel<1, Number>;
  kernel<<<blocks(pass.shape), RowsBlock::threads, 0, static_cast<cudaStream_t>(stream)>>>(pass);
  check("norm_forward", cudaGetLastError());
}
template <class Number>
void norm_backward_device(const NormBackward<Number>& pass, void* stream) {
  if (pass.shape.rows == 0) return;
  const auto kernel = in_packs(pass.shape, pass.reader) ? norm_backward_kernel<packed, Number>
                                                        : norm_backward_kernel<1, Number>;
  kernel<<<blocks(pass.shape), RowsBlock::threads, 0, static_cast<cudaStream_t>(stream)>>>(pass);
  check("norm_backward", cudaGetLastError());
}

template void norm_forward_device(const NormForward<float>&, void*);
template void norm_forward_device(const NormForward<Bfloat16>&, void*);
template void norm_backward_device(const NormBackward<float>&, void*);
template void norm_backward_device(const NormBackward<Bfloat16>&, void*);

}  // namespace comigs::kernels
