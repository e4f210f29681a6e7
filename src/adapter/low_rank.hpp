// What stands beside a frozen product.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::adapter {

/// y [n, out] += reduced [n, R] factor [R, out]. In bfloat16 ranks of zeros are added until matrix units can
/// read the rows.
void add_low_rank(at::Tensor& y, const at::Tensor& reduced, const at::Tensor& factor);

}  // namespace comigs::adapter
