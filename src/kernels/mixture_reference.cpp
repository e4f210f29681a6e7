// The definitions as they stand in the header, one element at a time.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "comigs/kernels/mixture.hpp"
#include "number.hpp"

namespace comigs::kernels {

namespace {

struct Gelu {
  double value, slope;
};
Gelu gelu(double z) {
  const double c = std::sqrt(2.0 / std::numbers::pi), t = std::tanh(c * (z + 0.044715 * z * z * z));
  return {.value = 0.5 * z * (1.0 + t),
          .slope = 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * z * z)};
}

// What both passes work out again for a token, an expert and a column.
struct Place {
  std::int64_t t, e, f;
};
template <class Number>
Gelu activation(const MixtureInputs<Number>& in, const Place& at) {
  const auto [n, F, E, R] = in.shape;
  double z = static_cast<double>(to_float(in.hidden[at.t * F + at.f]));
  for (std::int64_t r = 0; r < R; ++r)
    z += static_cast<double>(in.reduced[(at.t * E + at.e) * R + r]) * in.up_B[(at.e * R + r) * F + at.f];
  return gelu(z);
}

template <class Visit>
void for_each_place(const MixtureShape& shape, const float* gate, const Visit& visit) {
  for (std::int64_t t = 0; t < shape.tokens; ++t)
    for (std::int64_t e = 0; e < shape.experts; ++e)
      for (std::int64_t f = 0; f < shape.inner && gate[t * shape.experts + e] != 0.0f; ++f)
        visit(Place{t, e, f}, static_cast<double>(gate[t * shape.experts + e]));
}

std::size_t length(std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); }

template <class To>
void write_all(const std::vector<double>& sums, To* to) {
  for (std::size_t i = 0; i < sums.size() && to != nullptr; ++i)
    from_float(static_cast<float>(sums[i]), to[i]);
}

template <class Number>
void forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out) {
  const auto [n, F, E, R] = in.shape;
  const std::int64_t rank = R, inner = F, experts = E;
  std::vector<double> mixed(length(n, F)), weighted(length(n, E * R));
  for_each_place(in.shape, in.gate, [&](const Place& at, double share) {
    const double a = share * activation(in, at).value;
    mixed[static_cast<std::size_t>(at.t * inner + at.f)] += a;
    for (std::int64_t r = 0; r < rank; ++r)
      weighted[static_cast<std::size_t>((at.t * experts + at.e) * rank + r)] +=
          a * in.down_A[(at.e * rank + r) * inner + at.f];
  });
  write_all(mixed, out.mixed);
  write_all(weighted, out.weighted);
}

template <class Number>
void backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& g) {
  const auto [n, F, E, R] = in.shape;
  const std::int64_t rank = R, inner = F, experts = E;
  std::vector<double> hidden(length(n, F)), reduced(length(n, E * R)), gate(length(n, E)),
      up_B(length(E * R, F)), down_A(length(E * R, F));
  for_each_place(in.shape, in.gate, [&](const Place& at, double share) {
    const std::int64_t token = (at.t * experts + at.e) * rank, column = at.e * rank * inner + at.f;
    const Gelu a = activation(in, at);
    double d_a = static_cast<double>(to_float(g.d_mixed[at.t * inner + at.f]));
    for (std::int64_t r = 0; r < rank; ++r)
      d_a += static_cast<double>(g.d_weighted[token + r]) * in.down_A[column + r * inner];
    const double d_z = d_a * share * a.slope;
    gate[static_cast<std::size_t>(at.t * experts + at.e)] += d_a * a.value;
    hidden[static_cast<std::size_t>(at.t * inner + at.f)] += d_z;
    for (std::int64_t r = 0; r < rank; ++r) {
      reduced[static_cast<std::size_t>(token + r)] += d_z * in.up_B[column + r * inner];
      up_B[static_cast<std::size_t>(column + r * inner)] += d_z * in.reduced[token + r];
      down_A[static_cast<std::size_t>(column + r * inner)] += share * a.value * g.d_weighted[token + r];
    }
  });
  write_all(hidden, g.d_hidden);
  write_all(up_B, g.d_up_B);
  write_all(down_A, g.d_down_A);
  for (std::size_t i = 0; i < reduced.size(); ++i) g.d_reduced[i] += static_cast<float>(reduced[i]);
  for (std::size_t i = 0; i < gate.size() && g.d_gate != nullptr; ++i)
    g.d_gate[i] += static_cast<float>(gate[i]);
}

}  // namespace

template <>
void mixture_forward_reference(const MixtureInputs<float>& in, const MixtureOutputs<float>& out) {
  forward(in, out);
}
template <>
void mixture_forward_reference(const MixtureInputs<Bfloat16>& in, const MixtureOutputs<Bfloat16>& out) {
  forward(in, out);
}
template <>
void mixture_backward_reference(const MixtureInputs<float>& in, const MixtureGradients<float>& gradients) {
  backward(in, gradients);
}
template <>
void mixture_backward_reference(const MixtureInputs<Bfloat16>& in,
                                const MixtureGradients<Bfloat16>& gradients) {
  backward(in, gradients);
}

}  // namespace comigs::kernels
