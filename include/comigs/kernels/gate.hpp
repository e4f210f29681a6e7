// The gate of a top-k mixture: from the router's logits to the experts' shares, and back.
#pragma once

#include <cstdint>

namespace comigs::kernels {

/// n tokens, E experts, of which K are active for a token (1 <= K <= E).
struct GateShape {
  std::int64_t tokens = 0, experts = 0, active = 0;
};

/// Row-major. The K largest logits of a token are chosen, among equal ones those of the lower experts.
struct GateForward {
  GateShape shape;
  const float* logits = nullptr;   ///< [n, E]
  float* probabilities = nullptr;  ///< [n, E]: softmax over all experts
  /// [n, E]: softmax over the chosen experts, 0 for the others. K = 1: the chosen expert's probability, as in
  /// Switch Transformers (Fedus et al. 2022); of a softmax over one the router would get no gradient.
  float* gate = nullptr;
  std::uint8_t* chosen = nullptr;  ///< [n, E]: 1 or 0
};

/// The load of the experts, [E] each: means over tokens, of sums in float64.
struct GateLoad {
  float* chosen = nullptr;
  float* probabilities = nullptr;
};

/// What the backward pass is given (d_ marks the gradient of the loss) and writes. The choice has no
/// gradient.
struct GateBackward {
  GateShape shape;
  const float* probabilities = nullptr;    ///< [n, E], as the forward pass wrote them
  const float* gate = nullptr;             ///< [n, E], as the forward pass wrote it
  const float* d_gate = nullptr;           ///< [n, E]; null: zero
  const float* d_probabilities = nullptr;  ///< [E], of the mean over tokens; null: zero
  float* d_logits = nullptr;               ///< [n, E]
};

/// The definitions, an element at a time in float64.
void gate_forward_reference(const GateForward& pass);
void gate_backward_reference(const GateBackward& pass);

/// In host memory. Tokens [begin, end), so that threads can each take a part.
void gate_forward(const GateForward& pass, std::int64_t begin, std::int64_t end);
void gate_backward(const GateBackward& pass, std::int64_t begin, std::int64_t end);
/// Means over all tokens of `chosen` and `probabilities`, in host memory.
void gate_load(const GateForward& pass, const GateLoad& load);

/// For device memory, queued on `stream` (a cudaStream_t). The same bits at every run. Throw CommError if
/// they cannot be launched or were not built in.
void gate_forward_device(const GateForward& pass, void* stream);
void gate_backward_device(const GateBackward& pass, void* stream);
void gate_load_device(const GateForward& pass, const GateLoad& load, void* stream);

}  // namespace comigs::kernels
