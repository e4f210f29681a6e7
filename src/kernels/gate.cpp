#include "comigs/kernels/gate.hpp"

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
  for (std::int64_t e = 0; e < pass.shape.experts; ++e) {
    double chosen = 0.0, probabilities = 0.0;
    for (std::int64_t i = e; i < pass.shape.tokens * pass.shape.experts; i += pass.shape.experts) {
      chosen += pass.chosen[i];
      probabilities += static_cast<double>(pass.probabilities[i]);
    }
    load.chosen[e] = mean(chosen, pass.shape);
    load.probabilities[e] = mean(probabilities, pass.shape);
  }
}

}  // namespace comigs::kernels
