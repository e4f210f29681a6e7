// The way through a frozen network with what a user trains.
#pragma once

#include <ATen/core/Tensor.h>

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

}  // namespace comigs::adapter
