#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "comigs/adapter/kind.hpp"
#include "sequence_gate.hpp"

namespace comigs::adapter {

Forward forward(const model::BaseModel& base, const at::Tensor& tokens, const Parameters& parameters,
                const at::Tensor& instruction) {
  const std::unique_ptr<AdapterHooks> hooks =
      parameters.user_model().kind->hooks(parameters, base, instruction);
  const at::Tensor hidden = model::forward(base, tokens, *hooks);
  return {.hidden = hidden, .routing = hooks->routing()};
}

at::Tensor sequence_gate_feature(const model::BaseModel& base, const at::Tensor& tokens,
                                 const Parameters& parameters, const at::Tensor& instruction) {
  return parameters.user_model().kind->gate_feature(parameters, base, tokens, instruction);
}

at::Tensor sequence_gate_logits(const model::BaseModel& base, const at::Tensor& tokens,
                                const Parameters& parameters, const at::Tensor& instruction) {
  return sequence_gate(parameters, sequence_gate_feature(base, tokens, parameters, instruction));
}

Continuation::Continuation(const model::BaseModel& base, const Parameters& parameters, std::int64_t most)
    : base_(base), hooks_(parameters.user_model().kind->hooks(parameters, base, {})), cache_(most) {}

Continuation::~Continuation() = default;

at::Tensor Continuation::hidden(const at::Tensor& tokens) {
  const at::NoGradGuard no_gradients;
  return model::forward(base_, tokens, *hooks_, &cache_);
}

void initialise(Parameters& parameters, const model::BaseModel& base, std::uint64_t seed, std::int64_t user) {
  parameters.initialise(seed, user);
  const AdapterKind& kind = *parameters.user_model().kind;
  if (kind.begin != nullptr) kind.begin(parameters, base, seed, static_cast<std::uint32_t>(user));
}

}  // namespace comigs::adapter
