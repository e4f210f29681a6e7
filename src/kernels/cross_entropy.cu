#include "cross_entropy_block.hpp"
#include "cuda_block.cuh"

namespace comigs::kernels {

namespace {

// The largest block: the fewer rows are under way, the more of each is still in the second-level cache when
// it is read again.
using RowBlock = CudaBlock<1024>;

template <class Number>
__global__ void __launch_bounds__(RowBlock::threads, 2) cross_entropy_kernel(LogitRows<Number> rows) {
  RowBlock block;
  cross_entropy_row(block, rows, blockIdx.x);
}

}  // namespace

template <class Number>
void cross_entropy_rows_device(const LogitRows<Number>& rows, void* stream) {
  if (rows.tokens == 0) return;
  constexpr auto memory = sizeof(float) * RowBlock::threads / warp_lanes;
  cross_entropy_kernel<<<static_cast<unsigned>(rows.tokens), RowBlock::threads, memory,
                         static_cast<cudaStream_t>(stream)>>>(rows);
  check("cross_entropy", cudaGetLastError());
}

template void cross_entropy_rows_device(const LogitRows<float>&, void*);
template void cross_entropy_rows_device(const LogitRows<Bfloat16>&, void*);

}  // namespace comigs::kernels
