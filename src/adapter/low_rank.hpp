// What stands beside a frozen product.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::adapter {

/// y [n, out] += reduced [n, R] factor [R, out] + times [n, 1] bias [out], in one pass over y: the bias is
/// one more rank, and in bfloat16 zeros are added until matrix units can read the rows. Undefined `times`: 1;
/// undefined `bias`: 0.
void add_low_rank(at::Tensor& y, const at::Tensor& reduced, const at::Tensor& factor, const at::Tensor& bias,
                  const at::Tensor& times = {});

}  // namespace comigs::adapter
