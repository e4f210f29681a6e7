#include "comigs/kernels/mixture.hpp"
#include "mixture_plan.hpp"

namespace comigs::kernels {

std::size_t mixture_forward_workspace(const MixtureShape& shape) {
  return sizeof(float) *
         static_cast<std::size_t>(column_tiles(shape) * shape.tokens * shape.experts * shape.rank);
}

std::size_t mixture_backward_workspace(const MixtureShape& shape) {
  const std::int64_t factors =
      (shape.ups() + 1) * token_parts(shape) * shape.experts * shape.rank * shape.inner;
  const std::int64_t tokens =
      column_tiles(shape) * shape.tokens * shape.experts * (shape.ups() * shape.rank + 1);
  return sizeof(float) * static_cast<std::size_t>(factors + tokens);
}

}  // namespace comigs::kernels
