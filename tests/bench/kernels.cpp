// The fused kernels at the sizes of GPT-2 124M, one thread each: time a call; elements or tokens a second.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "comigs/base/random.hpp"
#include "comigs/kernels/adamw.hpp"
#include "comigs/kernels/cross_entropy.hpp"
#include "comigs/kernels/gate.hpp"
#include "comigs/kernels/mixture.hpp"

namespace {

using namespace comigs;
using namespace comigs::kernels;

constexpr std::int64_t tokens = 1024, inner = 3072, rank = 8, active = 2, vocabulary = 50257;

// Numbers from N(0, 1), another draw for each `draw`.
std::vector<float> normal(std::int64_t count, std::uint32_t draw) {
  std::vector<float> numbers(static_cast<std::size_t>(count));
  fill_normal(numbers, 1.0F, {.seed = 1, .round = draw});
  return numbers;
}

template <class Number>
std::vector<Number> in_precision(const std::vector<float>& numbers) {
  if constexpr (std::is_same_v<Number, float>) {
    return numbers;
  } else {
    std::vector<Number> rounded;
    rounded.reserve(numbers.size());
    for (const float number : numbers)
      rounded.push_back(static_cast<Number>(std::bit_cast<std::uint32_t>(number) >> 16));
    return rounded;
  }
}

template <void (*step)(const AdamwSlice&, const AdamwStep&)>
void adamw(benchmark::State& state) {
  const std::int64_t count = state.range(0);
  std::vector<float> values = normal(count, 0), first = normal(count, 2);
  std::vector<float> second(static_cast<std::size_t>(count), 1.0F);
  const std::vector<float> gradients = normal(count, 1);
  const AdamwSlice slice{values.data(), gradients.data(), first.data(), second.data(), values.size()};
  const AdamwStep constants = adamw_step(1e-3, 0.9, 0.95, 1e-8, 0.01, 10);
  for (auto _ : state) {
    step(slice, constants);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * count);
}

// Two experts of each token, in turn, half and half.
std::vector<float> two_of(std::int64_t experts) {
  std::vector<float> gate(static_cast<std::size_t>(tokens * experts), 0.0F);
  const std::int64_t chosen = std::min(active, experts);
  for (std::int64_t n = 0; n < tokens; ++n)
    for (std::int64_t k = 0; k < chosen; ++k)
      gate[static_cast<std::size_t>(n * experts + (n + k) % experts)] = 1.0F / static_cast<float>(chosen);
  return gate;
}

// What both passes of the mixture read and write.
template <class Number>
struct Mixture {
  Mixture(std::int64_t experts, Activation activation)
      : hidden(in_precision<Number>(normal(up_projections(activation) * tokens * inner, 0))),
        mixed(static_cast<std::size_t>(tokens * inner)),
        d_mixed(in_precision<Number>(normal(tokens * inner, 1))),
        d_hidden(hidden.size()),
        reduced(normal(tokens * up_projections(activation) * experts * rank, 2)),
        gate(two_of(experts)),
        up_B(normal(up_projections(activation) * experts * rank * inner, 3)),
        down_A(normal(experts * rank * inner, 4)),
        weighted(static_cast<std::size_t>(tokens * experts * rank)),
        d_weighted(normal(tokens * experts * rank, 5)),
        d_reduced(reduced.size()),
        d_gate(gate.size()),
        d_up_B(up_B.size()),
        d_down_A(down_A.size()),
        in{.shape =
               {.tokens = tokens, .inner = inner, .experts = experts, .rank = rank, .activation = activation},
           .hidden = hidden.data(),
           .reduced = reduced.data(),
           .gate = gate.data(),
           .up_B = up_B.data(),
           .down_A = down_A.data()} {}

  std::vector<Number> hidden, mixed, d_mixed, d_hidden;
  std::vector<float> reduced, gate, up_B, down_A, weighted, d_weighted, d_reduced, d_gate, d_up_B, d_down_A;
  MixtureInputs<Number> in;
};

template <class Number, Activation activation>
void forward(benchmark::State& state) {
  Mixture<Number> mixture(state.range(0), activation);
  const MixtureOutputs<Number> out{mixture.mixed.data(), mixture.weighted.data()};
  for (auto _ : state) {
    mixture_forward(mixture.in, out, 0, tokens);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

template <class Number, Activation activation>
void backward(benchmark::State& state) {
  Mixture<Number> mixture(state.range(0), activation);
  const MixtureGradients<Number> gradients{.d_mixed = mixture.d_mixed.data(),
                                           .d_weighted = mixture.d_weighted.data(),
                                           .d_hidden = mixture.d_hidden.data(),
                                           .d_reduced = mixture.d_reduced.data(),
                                           .d_gate = mixture.d_gate.data(),
                                           .d_up_B = mixture.d_up_B.data(),
                                           .d_down_A = mixture.d_down_A.data()};
  for (auto _ : state) {
    mixture_backward(mixture.in, gradients, 0, inner);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

void gate(benchmark::State& state) {
  const std::int64_t experts = state.range(0);
  const std::vector<float> logits = normal(tokens * experts, 0);
  std::vector<float> probabilities(logits.size()), shares(logits.size());
  std::vector<std::uint8_t> chosen(logits.size());
  const GateForward pass{.shape = {.tokens = tokens, .experts = experts, .active = std::min(active, experts)},
                         .logits = logits.data(),
                         .probabilities = probabilities.data(),
                         .gate = shares.data(),
                         .chosen = chosen.data()};
  for (auto _ : state) {
    gate_forward(pass, 0, tokens);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

// The logits become their gradient, which is as good as any for the next call.
template <class Number>
void cross_entropy(benchmark::State& state) {
  constexpr std::int64_t stride = (vocabulary + 63) / 64 * 64;  // as the program lays them out
  const std::int64_t count = state.range(0);
  std::vector<Number> logits = in_precision<Number>(normal(count * stride, 0));
  const std::vector<std::int64_t> targets(static_cast<std::size_t>(count), vocabulary / 2);
  std::vector<float> losses(targets.size());
  const LogitRows<Number> rows{.tokens = count,
                               .vocabulary = vocabulary,
                               .stride = stride,
                               .logits = logits.data(),
                               .targets = targets.data(),
                               .losses = losses.data(),
                               .gradient = true};
  for (auto _ : state) {
    cross_entropy_rows(rows, 0, count);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * count);
}

constexpr std::int64_t trained = 1'916'928;  // LoRA of GPT-2 124M with 2 experts of rank 8

void one_to_eight(benchmark::internal::Benchmark* bench) {
  bench->ArgName("experts")->RangeMultiplier(2)->Range(1, 8)->Unit(benchmark::kMillisecond);
}

BENCHMARK(adamw<adamw_host>)->Name("adamw/host")->Arg(trained)->Unit(benchmark::kMillisecond);
BENCHMARK(adamw<adamw_reference>)->Name("adamw/reference")->Arg(trained)->Unit(benchmark::kMillisecond);
BENCHMARK(forward<float, Activation::gelu_tanh>)->Name("mixture_forward/float32")->Apply(one_to_eight);
BENCHMARK(forward<Bfloat16, Activation::gelu_tanh>)->Name("mixture_forward/bf16")->Apply(one_to_eight);
BENCHMARK(backward<float, Activation::gelu_tanh>)->Name("mixture_backward/float32")->Apply(one_to_eight);
BENCHMARK(backward<Bfloat16, Activation::gelu_tanh>)->Name("mixture_backward/bf16")->Apply(one_to_eight);
BENCHMARK(forward<float, Activation::silu_gated>)->Name("gated_mixture_forward/float32")->Apply(one_to_eight);
BENCHMARK(forward<Bfloat16, Activation::silu_gated>)->Name("gated_mixture_forward/bf16")->Apply(one_to_eight);
BENCHMARK(backward<float, Activation::silu_gated>)
    ->Name("gated_mixture_backward/float32")
    ->Apply(one_to_eight);
BENCHMARK(backward<Bfloat16, Activation::silu_gated>)
    ->Name("gated_mixture_backward/bf16")
    ->Apply(one_to_eight);
BENCHMARK(gate)->Name("gate_forward")->ArgName("experts")->RangeMultiplier(2)->Range(2, 16);
BENCHMARK(cross_entropy<float>)->Name("cross_entropy_rows/float32")->Arg(128)->Unit(benchmark::kMillisecond);
BENCHMARK(cross_entropy<Bfloat16>)->Name("cross_entropy_rows/bf16")->Arg(128)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
