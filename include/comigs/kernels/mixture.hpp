// The mixture of experts' activations between the two frozen projections of an MLP block.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comigs/kernels/activation.hpp"
#include "comigs/kernels/bfloat16.hpp"

namespace comigs::kernels {

/// n tokens, inner width F, E experts of rank R, S up projections. Number, below, is float or Bfloat16.
struct MixtureShape {
  std::int64_t tokens = 0, inner = 0, experts = 0, rank = 0;
  Activation activation = Activation::gelu_tanh;

  [[nodiscard]] std::int64_t ups() const { return up_projections(activation); }
};

/// What both passes read. Row-major. An expert takes part for a token where its gate is not zero.
template <class Number>
struct MixtureInputs {
  MixtureShape shape;
  const Number* hidden = nullptr;  ///< [S, n, F]: x up_s + up_bias_s
  const float* reduced = nullptr;  ///< [n, S, E, R]: u_si = gamma x A_si^T
  const float* gate = nullptr;     ///< [n, E]
  const float* up_B = nullptr;     ///< [S, E, R, F]: B_si^T
  const float* down_A = nullptr;   ///< [E, R, F]: A'_i
};

/// What the forward pass writes: mixed = sum_i g_i a_i and weighted_i = g_i a_i A'_i^T with
/// a_i = activation(hidden_s + u_si B_si^T for each s).
template <class Number>
struct MixtureOutputs {
  Number* mixed = nullptr;    ///< [n, F]
  float* weighted = nullptr;  ///< [n, E, R]
};

/// What the backward pass is given (d_ marks the gradient of the loss) and writes. The activations are worked
/// out again. Null: not asked for.
template <class Number>
struct MixtureGradients {
  const Number* d_mixed = nullptr;    ///< [n, F]
  const float* d_weighted = nullptr;  ///< [n, E, R]
  Number* d_hidden = nullptr;         ///< [S, n, F]
  float* d_reduced = nullptr;         ///< [n, S, E, R]
  float* d_gate = nullptr;            ///< [n, E]
  float* d_up_B = nullptr;            ///< [S, E, R, F]
  float* d_down_A = nullptr;          ///< [E, R, F]
};

/// The definitions, an element at a time in float64.
template <class Number>
void mixture_forward_reference(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out);
template <class Number>
void mixture_backward_reference(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients);

/// Vectorised. Tokens [begin, end), so that threads can each take a part.
template <class Number>
void mixture_forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out, std::int64_t begin,
                     std::int64_t end);
/// Vectorised. Columns [begin, end) of the inner width: parts write different elements of d_hidden, d_up_B
/// and d_down_A; d_reduced and d_gate are sums over columns, so each part needs its own.
template <class Number>
void mixture_backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients,
                      std::int64_t begin, std::int64_t end);

/// For device memory, queued on `stream` (a cudaStream_t); factors of a rank up to some hundred (shared
/// memory). The same bits at every run. `workspace` is as many bytes of device memory as the functions below
/// say, aligned to 16; what it holds before does not matter. Throw CommError if they cannot be launched or
/// were not built in.
template <class Number>
void mixture_forward_device(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out,
                            void* workspace, void* stream);
template <class Number>
void mixture_backward_device(const MixtureInputs<Number>& in, const MixtureGradients<Number>& gradients,
                             void* workspace, void* stream);
[[nodiscard]] std::size_t mixture_forward_workspace(const MixtureShape& shape);
[[nodiscard]] std::size_t mixture_backward_workspace(const MixtureShape& shape);

}  // namespace comigs::kernels
