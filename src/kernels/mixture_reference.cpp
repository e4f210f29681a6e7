// The definitions as they stand in the header, one element at a time.
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "comigs/kernels/mixture.hpp"
#include "number.hpp"

namespace comigs::kernels {

namespace {

constexpr std::size_t most_ups = 2;

struct Point {
  double value = 0.0;
  std::array<double, most_ups> slope{};
};

Point gelu(double z) {
  const double c = std::sqrt(2.0 / std::numbers::pi), t = std::tanh(c * (z + 0.044715 * z * z * z));
  return {.value = 0.5 * z * (1.0 + t),
          .slope = {0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * z * z)}};
}

Point gated_silu(double gate, double up) {
  const double s = 1.0 / (1.0 + std::exp(-gate));
  return {.value = gate * s * up, .slope = {up * (s + gate * s * (1.0 - s)), gate * s}};
}

// A token, an expert and a column.
struct Place {
  std::int64_t t, e, f;
};

// Where the numbers of a place lie, of up projection s.
struct Indices {
  MixtureShape shape;

  [[nodiscard]] std::int64_t hidden(const Place& at, std::int64_t s) const {
    return (s * shape.tokens + at.t) * shape.inner + at.f;
  }
  [[nodiscard]] std::int64_t reduced(const Place& at, std::int64_t s, std::int64_t r) const {
    return ((at.t * shape.ups() + s) * shape.experts + at.e) * shape.rank + r;
  }
  [[nodiscard]] std::int64_t up_B(const Place& at, std::int64_t s, std::int64_t r) const {
    return ((s * shape.experts + at.e) * shape.rank + r) * shape.inner + at.f;
  }
  [[nodiscard]] std::int64_t weighted(const Place& at, std::int64_t r) const {
    return (at.t * shape.experts + at.e) * shape.rank + r;
  }
  [[nodiscard]] std::int64_t down_A(const Place& at, std::int64_t r) const { return up_B(at, 0, r); }
};

// What both passes work out again.
template <class Number>
Point activation(const MixtureInputs<Number>& in, const Place& at) {
  const Indices index{in.shape};
  std::array<double, most_ups> z{};
  for (std::int64_t s = 0; s < in.shape.ups(); ++s) {
    double& sum = z[static_cast<std::size_t>(s)];
    sum = static_cast<double>(to_float(in.hidden[index.hidden(at, s)]));
    for (std::int64_t r = 0; r < in.shape.rank; ++r)
      sum += static_cast<double>(in.reduced[index.reduced(at, s, r)]) * in.up_B[index.up_B(at, s, r)];
  }
  return in.shape.activation == Activation::silu_gated ? gated_silu(z[0], z[1]) : gelu(z[0]);
}

template <class Visit>
void for_each_place(const MixtureShape& shape, const float* gate, const Visit& visit) {
  for (std::int64_t t = 0; t < shape.tokens; ++t)
    for (std::int64_t e = 0; e < shape.experts; ++e)
      for (std::int64_t f = 0; f < shape.inner && gate[t * shape.experts + e] != 0.0f; ++f)
        visit(Place{t, e, f}, static_cast<double>(gate[t * shape.experts + e]));
}

// Sums in float64, written at the end.
struct Sums {
  std::vector<double> of;

  explicit Sums(std::int64_t count) : of(static_cast<std::size_t>(count)) {}
  double& operator[](std::int64_t i) { return of[static_cast<std::size_t>(i)]; }

  template <class To>
  void write(To* to) const {
    for (std::size_t i = 0; i < of.size() && to != nullptr; ++i) from_float(static_cast<float>(of[i]), to[i]);
  }
};

template <class Number>
void forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out) {
  const MixtureShape& shape = in.shape;
  const Indices index{shape};
  Sums mixed(shape.tokens * shape.inner), weighted(shape.tokens * shape.experts * shape.rank);
  for_each_place(shape, in.gate, [&](const Place& at, double share) {
    const double a = share * activation(in, at).value;
    mixed[index.hidden(at, 0)] += a;
    for (std::int64_t r = 0; r < shape.rank; ++r)
      weighted[index.weighted(at, r)] += a * static_cast<double>(in.down_A[index.down_A(at, r)]);
  });
  mixed.write(out.mixed);
  weighted.write(out.weighted);
}

template <class Number>
void backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& g) {
  const MixtureShape& shape = in.shape;
  const Indices index{shape};
  const std::int64_t S = shape.ups(), pairs = shape.tokens * shape.experts,
                     factor = shape.experts * shape.rank * shape.inner;
  Sums hidden(S * shape.tokens * shape.inner), reduced(S * pairs * shape.rank), gate(pairs), up_B(S * factor),
      down_A(factor);
  for_each_place(shape, in.gate, [&](const Place& at, double share) {
    const Point a = activation(in, at);
    double d_a = static_cast<double>(to_float(g.d_mixed[index.hidden(at, 0)]));
    for (std::int64_t r = 0; r < shape.rank; ++r) {
      const auto d_weighted = static_cast<double>(g.d_weighted[index.weighted(at, r)]);
      d_a += d_weighted * static_cast<double>(in.down_A[index.down_A(at, r)]);
      down_A[index.down_A(at, r)] += share * a.value * d_weighted;
    }
    gate[at.t * shape.experts + at.e] += d_a * a.value;
    for (std::int64_t s = 0; s < S; ++s) {
      const double d_z = d_a * share * a.slope[static_cast<std::size_t>(s)];
      hidden[index.hidden(at, s)] += d_z;
      for (std::int64_t r = 0; r < shape.rank; ++r) {
        const std::int64_t u = index.reduced(at, s, r), B = index.up_B(at, s, r);
        reduced[u] += d_z * static_cast<double>(in.up_B[B]);
        up_B[B] += d_z * static_cast<double>(in.reduced[u]);
      }
    }
  });
  hidden.write(g.d_hidden);
  up_B.write(g.d_up_B);
  down_A.write(g.d_down_A);
  reduced.write(g.d_reduced);
  gate.write(g.d_gate);
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
