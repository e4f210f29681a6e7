// The way through a frozen network with what a user trains.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/routing.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::adapter {

struct Forward {
  at::Tensor hidden;                  ///< [B T, C], after the last norm, in the activations' precision
  std::vector<LayerRouting> routing;  ///< one for each layer, or empty where nothing is routed
};

/// A pass with the user's parameters, by the hooks of their kind; see model::forward.
[[nodiscard]] Forward forward(const model::BaseModel& base, const at::Tensor& tokens,
                              const Parameters& parameters, model::KeyValueCache* cache = nullptr);

/// The parameters as a user begins with them: as `Parameters::initialise`, and what its kind takes from the
/// base. Depends on the arguments alone.
void initialise(Parameters& parameters, const model::BaseModel& base, std::uint64_t seed, std::int64_t user);

}  // namespace comigs::adapter
