#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>

#include "comigs/adapter/kind.hpp"

namespace comigs::adapter {

Forward forward(const model::BaseModel& base, const at::Tensor& tokens, const Parameters& parameters,
                model::KeyValueCache* cache) {
  const std::unique_ptr<AdapterHooks> hooks = parameters.user_model().kind->hooks(parameters);
  const at::Tensor hidden = model::forward(base, tokens, *hooks, cache);
  return {.hidden = hidden, .routing = hooks->routing()};
}

}  // namespace comigs::adapter
