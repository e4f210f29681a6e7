// What stands beside a frozen product.
#pragma once

#include <ATen/core/Tensor.h>

namespace comigs::model {

/// y [n, out] += reduced [n, R] factor [R, out] + bias [out], in one pass over y: the bias is one more rank.
void add_low_rank(at::Tensor& y, const at::Tensor& reduced, const at::Tensor& factor, const at::Tensor& bias);

}  // namespace comigs::model
