// The mixture's kernels on a card against the host's, of GPT-2's inner width and SmolLM2's.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "card_account.hpp"
#include "comigs/kernels/mixture.hpp"

namespace comigs::kernels {

// Of numbers that are of type Number, as tensor cores take them.
template <class Number>
std::vector<float> factors(std::int64_t count, float scale, std::uint32_t draw) {
  const auto drawn = normal<Number>(count, scale, draw);
  std::vector<float> numbers(drawn.size());
  std::ranges::transform(drawn, numbers.begin(), [](Number number) { return to_float(number); });
  return numbers;
}

template <class Number>
struct MixtureOperands {
  MixtureShape shape;
  std::vector<Number> hidden, d_mixed;
  std::vector<float> reduced, gate, up_B, down_A, d_weighted;

  explicit MixtureOperands(const MixtureShape& shape_)
      : shape(shape_),
        hidden(normal<Number>(shape.ups() * shape.tokens * shape.inner, 1.5F, 0)),
        d_mixed(normal<Number>(shape.tokens * shape.inner, 1.0F, 1)),
        reduced(factors<Number>(shape.tokens * shape.ups() * shape.experts * shape.rank, 0.5F, 2)),
        gate(size(shape.tokens * shape.experts)),
        up_B(factors<Number>(shape.ups() * shape.experts * shape.rank * shape.inner, 0.3F, 3)),
        down_A(factors<Number>(shape.experts * shape.rank * shape.inner, 0.3F, 4)),
        d_weighted(factors<Number>(shape.tokens * shape.experts * shape.rank, 0.5F, 5)) {
    for (std::int64_t n = 0; n < shape.tokens; ++n)
      for (std::int64_t k = 0; k < std::min(active, shape.experts); ++k)
        gate[size(n * shape.experts + (3 * n + k) % shape.experts)] = 0.4F + 0.2F * static_cast<float>(k);
  }
  [[nodiscard]] std::string name(const char* pass) const {
    return fmt::format("{} {} {} E {} R {}",
                       shape.activation == Activation::silu_gated ? "gated mixture" : "mixture", pass,
                       precision<Number>, shape.experts, shape.rank);
  }
};

template <class Number>
struct MixtureOnCard {
  OnCard<Number> hidden, d_mixed;
  OnCard<float> reduced, gate, up_B, down_A, d_weighted;

  explicit MixtureOnCard(const MixtureOperands<Number>& host)
      : hidden(host.hidden),
        d_mixed(host.d_mixed),
        reduced(host.reduced),
        gate(host.gate),
        up_B(host.up_B),
        down_A(host.down_A),
        d_weighted(host.d_weighted) {}
  MixtureInputs<Number> inputs(const MixtureShape& shape) {
    return {shape, hidden.data(), reduced.data(), gate.data(), up_B.data(), down_A.data()};
  }
};

template <class Number>
MixtureInputs<Number> inputs_of(const MixtureOperands<Number>& host) {
  return {host.shape,       host.hidden.data(), host.reduced.data(),
          host.gate.data(), host.up_B.data(),   host.down_A.data()};
}

template <class Number>
void mixture_forward_case(const MixtureOperands<Number>& host, MixtureOnCard<Number>& card) {
  const MixtureShape& shape = host.shape;
  std::vector<Number> mixed(host.d_mixed.size());
  std::vector<float> weighted(host.d_weighted.size());
  mixture_forward(inputs_of(host), MixtureOutputs<Number>{mixed.data(), weighted.data()}, 0, shape.tokens);

  OnCard<Number> card_mixed(mixed.size());
  OnCard<float> card_weighted(weighted.size());
  OnCard<std::byte> workspace(mixture_forward_workspace(shape));
  const auto launch = [&] {
    mixture_forward_device(card.inputs(shape),
                           MixtureOutputs<Number>{card_mixed.data(), card_weighted.data()}, workspace.data(),
                           nullptr);
  };
  Account account(host.name("forward"), tolerance<Number>);
  launch();
  const auto first_mixed = card_mixed.on_host();
  const auto first_weighted = card_weighted.on_host();
  launch();
  account.compare(mixed, first_mixed, card_mixed.on_host());
  account.compare_sums<Number>(weighted, first_weighted, card_weighted.on_host());
  account.tell(milliseconds(launch),
               2.0 * static_cast<double>(mixed.size() * sizeof(Number) + weighted.size() * sizeof(float)));
}

// Everything that the backward pass writes.
template <class Number>
struct MixtureGradientNumbers {
  std::vector<Number> d_hidden;
  std::vector<float> d_reduced, d_gate, d_up_B, d_down_A;

  explicit MixtureGradientNumbers(const MixtureOperands<Number>& of)
      : d_hidden(of.hidden.size()),
        d_reduced(of.reduced.size()),
        d_gate(of.gate.size()),
        d_up_B(of.up_B.size()),
        d_down_A(of.down_A.size()) {}
};

template <class Number>
struct MixtureGradientsOnCard {
  OnCard<Number> d_hidden;
  OnCard<float> d_reduced, d_gate, d_up_B, d_down_A;

  explicit MixtureGradientsOnCard(const MixtureGradientNumbers<Number>& like)
      : d_hidden(like.d_hidden.size()),
        d_reduced(like.d_reduced.size()),
        d_gate(like.d_gate.size()),
        d_up_B(like.d_up_B.size()),
        d_down_A(like.d_down_A.size()) {}
  MixtureGradients<Number> of(MixtureOnCard<Number>& card) {
    return {card.d_mixed.data(), card.d_weighted.data(), d_hidden.data(), d_reduced.data(),
            d_gate.data(),       d_up_B.data(),          d_down_A.data()};
  }
  [[nodiscard]] MixtureGradientNumbers<Number> on_host(const MixtureOperands<Number>& operands) const {
    MixtureGradientNumbers<Number> numbers(operands);
    numbers.d_hidden = d_hidden.on_host();
    numbers.d_reduced = d_reduced.on_host();
    numbers.d_gate = d_gate.on_host();
    numbers.d_up_B = d_up_B.on_host();
    numbers.d_down_A = d_down_A.on_host();
    return numbers;
  }
};

template <class Number>
void mixture_backward_case(const MixtureOperands<Number>& host, MixtureOnCard<Number>& card) {
  const MixtureShape& shape = host.shape;
  MixtureGradientNumbers<Number> expected(host);
  mixture_backward(
      inputs_of(host),
      MixtureGradients<Number>{host.d_mixed.data(), host.d_weighted.data(), expected.d_hidden.data(),
                               expected.d_reduced.data(), expected.d_gate.data(), expected.d_up_B.data(),
                               expected.d_down_A.data()},
      0, shape.inner);

  MixtureGradientsOnCard<Number> gradients(expected);
  OnCard<std::byte> workspace(mixture_backward_workspace(shape));
  const auto launch = [&] {
    mixture_backward_device(card.inputs(shape), gradients.of(card), workspace.data(), nullptr);
  };
  launch();
  const auto first = gradients.on_host(host);
  launch();
  const auto second = gradients.on_host(host);
  Account account(host.name("backward"), tolerance<Number>);
  account.compare(expected.d_hidden, first.d_hidden, second.d_hidden);
  account.compare_sums<Number>(expected.d_reduced, first.d_reduced, second.d_reduced);
  account.compare(expected.d_gate, first.d_gate, second.d_gate);
  account.compare_sums<Number>(expected.d_up_B, first.d_up_B, second.d_up_B);
  account.compare_sums<Number>(expected.d_down_A, first.d_down_A, second.d_down_A);
  account.tell(milliseconds(launch), static_cast<double>(3 * host.hidden.size() * sizeof(Number) +
                                                         3 * host.reduced.size() * sizeof(float)));
}

template <class Number>
void mixture_cases(std::int64_t tokens) {
  // GPT-2's inner width and SmolLM2's.
  for (const auto& [inner, activation] :
       {std::pair{3072, Activation::gelu_tanh}, {1536, Activation::silu_gated}})
    for (const std::int64_t experts : {1, 2, 4, 8})
      for (const std::int64_t rank : {4, 8, 16}) {
        const MixtureOperands<Number> host({tokens, inner, experts, rank, activation});
        MixtureOnCard<Number> card(host);
        mixture_forward_case(host, card);
        mixture_backward_case(host, card);
      }
}

}  // namespace comigs::kernels
