// The gate of one token, compiled for the CPU and for CUDA from this one text. E is small: logits are read
// again and again, from the first-level cache, so that no array of E is needed.
#pragma once

#include <cmath>

#include "comigs/kernels/gate.hpp"
#include "number.hpp"

namespace comigs::kernels {

// Whether fewer than K experts come before this one.
COMIGS_HOST_DEVICE inline bool is_chosen(const float* logits, const GateShape& shape, std::int64_t expert) {
  std::int64_t before = 0;
  for (std::int64_t e = 0; e < shape.experts; ++e)
    before += logits[e] > logits[expert] || (logits[e] == logits[expert] && e < expert) ? 1 : 0;
  return before < shape.active;
}

// A softmax over one chosen expert would be 1 whatever the router says, which would then learn nothing.
COMIGS_HOST_DEVICE inline bool shares_of_all(const GateShape& shape) { return shape.active == 1; }

// Over the tokens; 0 of none.
COMIGS_HOST_DEVICE inline float mean(double sum, const GateShape& shape) {
  return shape.tokens == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(shape.tokens));
}

template <class Real>
COMIGS_HOST_DEVICE inline void gate_forward_token(const GateForward& pass, std::int64_t token) {
  const std::int64_t first = token * pass.shape.experts;
  const float* logits = pass.logits + first;
  Real largest = logits[0];
  for (std::int64_t e = 1; e < pass.shape.experts; ++e) largest = logits[e] > largest ? logits[e] : largest;
  // The largest logit is always chosen, so both sums are at least 1.
  Real sum = 0, sum_chosen = 0;
  for (std::int64_t e = 0; e < pass.shape.experts; ++e) {
    const bool chosen = is_chosen(logits, pass.shape, e);
    const Real exponential = std::exp(static_cast<Real>(logits[e]) - largest);
    pass.chosen[first + e] = chosen ? 1 : 0;
    sum += exponential;
    sum_chosen += chosen ? exponential : Real{0};
  }
  const Real whole = shares_of_all(pass.shape) ? sum : sum_chosen;
  for (std::int64_t e = 0; e < pass.shape.experts; ++e) {
    const Real exponential = std::exp(static_cast<Real>(logits[e]) - largest);
    pass.probabilities[first + e] = static_cast<float>(exponential / sum);
    pass.gate[first + e] = pass.chosen[first + e] != 0 ? static_cast<float>(exponential / whole) : 0.0f;
  }
}

// Of a softmax p with gradient d: d_logit = p (d - sum_j p_j d_j). An expert that is not chosen has gate 0,
// and its d is 0.
template <class Real>
COMIGS_HOST_DEVICE inline void gate_backward_token(const GateBackward& pass, std::int64_t token) {
  const std::int64_t first = token * pass.shape.experts;
  const float* shares = shares_of_all(pass.shape) ? pass.probabilities : pass.gate;
  const Real share = Real{1} / static_cast<Real>(pass.shape.tokens);  // of a token in a mean
  Real gate_mean = 0, probability_mean = 0;
  for (std::int64_t e = 0; e < pass.shape.experts; ++e) {
    if (pass.d_gate != nullptr)
      gate_mean += static_cast<Real>(pass.gate[first + e]) * static_cast<Real>(pass.d_gate[first + e]);
    if (pass.d_probabilities != nullptr)
      probability_mean +=
          static_cast<Real>(pass.probabilities[first + e]) * static_cast<Real>(pass.d_probabilities[e]);
  }
  for (std::int64_t e = 0; e < pass.shape.experts; ++e) {
    Real d_logit = 0;
    if (pass.d_gate != nullptr) {
      const Real d_gate = pass.gate[first + e] != 0.0f ? static_cast<Real>(pass.d_gate[first + e]) : Real{0};
      d_logit += static_cast<Real>(shares[first + e]) * (d_gate - gate_mean);
    }
    if (pass.d_probabilities != nullptr)
      d_logit += share * static_cast<Real>(pass.probabilities[first + e]) *
                 (static_cast<Real>(pass.d_probabilities[e]) - probability_mean);
    pass.d_logits[first + e] = static_cast<float>(d_logit);
  }
}

}  // namespace comigs::kernels
