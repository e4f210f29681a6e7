#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>

#include "comigs/adapter/kind.hpp"

namespace comigs::adapter {

Forward forward(const model::BaseModel& base, const at::Tensor& tokens, const Parameters& parameters,
                model::KeyValueCache* cache) {
  const std::unique_ptr<AdapterHooks> hooks = parameters.user_model().kind->hooks(parameters, base);
  const at::Tensor hidden = model::forward(base, tokens, *hooks, cache);
  return {.hidden = hidden, .routing = hooks->routing()};
}

void initialise(Parameters& parameters, const model::BaseModel& base, std::uint64_t seed, std::int64_t user) {
  parameters.initialise(seed, user);
  const AdapterKind& kind = *parameters.user_model().kind;
  if (kind.begin != nullptr) kind.begin(parameters, base, seed, static_cast<std::uint32_t>(user));
}

}  // namespace comigs::adapter
