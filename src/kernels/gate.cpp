#include "comigs/kernels/gate.hpp"

#include <algorithm>

#include "gate_token.hpp"

namespace comigs::kernels {

void gate_forward_reference(const GateForward& pass) {
  for (std::int64_t token = 0; token < pass.shape.tokens; ++token) gate_forward_token<double>(pass, token);
}

void gate_backward_reference(const GateBackward& pass) {
  for (std::int64_t token = 0; token < pass.shape.tokens; ++token) gate_backward_token<double>(pass, token);
}

void gate_forward(const GateForward& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = begin; token < end; ++token) gate_forward_token<float>(pass, token);
}

void gate_backward(const GateBackward& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t token = begin; token < end; ++token) gate_backward_token<float>(pass, token);
}

void gate_load(const GateForward& pass, const GateLoad& load) {
  const std::int64_t experts = pass.shape.experts;
  std::fill_n(load.chosen, experts, 0.0);
  std::fill_n(load.probabilities, experts, 0.0);
  for (std::int64_t token = 0; token < pass.shape.tokens; ++token)
    for (std::int64_t e = 0; e < experts; ++e) {
      load.chosen[e] += pass.chosen[token * experts + e];
      load.probabilities[e] += static_cast<double>(pass.probabilities[token * experts + e]);
    }
}

}  // namespace comigs::kernels
