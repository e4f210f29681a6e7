// A user's parameters, for the tests of what is trained.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "comigs/adapter/parameters.hpp"
#include "support/tensors.hpp"

namespace comigs::test {

/// Parameters that are drawn, B and all, so that every term of the model differs from zero.
inline adapter::Parameters random_parameters(const model::Architecture& architecture,
                                             const adapter::UserModel& user_model, std::uint32_t number,
                                             double deviation = 0.2) {
  adapter::Parameters parameters(architecture, user_model, at::kCPU);
  at::Tensor values = parameters.values();
  values.copy_(normal({values.numel()}, number, deviation));
  return parameters;
}

}  // namespace comigs::test
