// Every device kernel against its host version, on the same numbers and at the sizes of GPT-2 124M: the
// worst difference of all that it writes, whether a second run gives the same bits, time, memory traffic.
//   test_kernels_card [small]     small: few tokens, for compute-sanitizer
// Exit code: 0 all agree; 1 not all, or no device.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "card_memory.hpp"
#include "comigs/base/random.hpp"
#include "comigs/kernels/adamw.hpp"
#include "comigs/kernels/cross_entropy.hpp"
#include "comigs/kernels/gate.hpp"
#include "comigs/kernels/mixture.hpp"
#include "comigs/kernels/norm.hpp"
#include "comigs/kernels/rank_sum.hpp"

namespace comigs::kernels {

namespace {

constexpr std::int64_t active = 2;
// Sums over all tokens in float32, in another order; two neighbouring bfloat16 numbers.
template <class Number>
constexpr double tolerance = std::is_same_v<Number, float> ? 1e-4 : 1.0 / 128;
template <class Number>
constexpr const char* precision = std::is_same_v<Number, float> ? "float32" : "bf16";

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

// Of N(0, scale^2), which come again after a million; another draw for each `draw`.
template <class Number = float>
std::vector<Number> normal(std::int64_t count, float scale, std::uint32_t draw) {
  std::vector<float> some(std::min<std::size_t>(size(count), 1'000'003));
  fill_normal(some, scale, {.seed = 1, .round = draw});
  std::vector<Number> numbers(size(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) from_float(some[i % some.size()], numbers[i]);
  return numbers;
}

// What is told of one kernel at one shape.
class Account {
 public:
  static void title() {
    fmt::print("{:36} {:>9} {:>9} {:>8}  {}\n", "kernel", "worst", "ms", "GB/s", "verdict");
  }
  static int wrong() { return wrong_; }

  Account(std::string kernel, double allowed) : kernel_(std::move(kernel)), allowed_(allowed) {}

  // Of an output, by the host and twice by the card.
  template <class T>
  void compare(const std::vector<T>& host, const std::vector<T>& first, const std::vector<T>& second) {
    worst_ = std::max(worst_, worst_difference(first, host));
    same_bits_ = same_bits_ && first == second;
  }
  // Of sums: tensor cores round their terms, for activations in bfloat16.
  template <class Number>
  void compare_sums(const std::vector<float>& host, const std::vector<float>& first,
                    const std::vector<float>& second) {
    if constexpr (std::is_same_v<Number, float>) return compare(host, first, second);
    worst_ = std::max(worst_, mean_difference(first, host));
    same_bits_ = same_bits_ && first == second;
  }
  void tell(double ms, double bytes) const {
    const bool right = worst_ <= allowed_ && same_bits_;
    wrong_ += right ? 0 : 1;
    fmt::print("{:36} {:9.1e} {:9.3f} {:8.0f}  {}\n", kernel_, worst_, ms, bytes / ms / 1e6,
               right        ? "ok"
               : same_bits_ ? "WRONG"
                            : "WRONG: other bits in the second run");
    std::fflush(stdout);
  }

 private:
  static inline int wrong_ = 0;
  std::string kernel_;
  double allowed_, worst_ = 0.0;
  bool same_bits_ = true;
};

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

template <class Number>
void cross_entropy_case(std::int64_t tokens, std::int64_t vocabulary) {
  const std::int64_t stride = (vocabulary + 63) / 64 * 64;  // as the program lays them out
  const auto logits = normal<Number>(tokens * stride, 2.0F, 6);
  std::vector<std::int64_t> targets(size(tokens));
  for (std::int64_t n = 0; n < tokens; ++n) targets[size(n)] = n % 5 == 3 ? -1 : 7919 * n % vocabulary;
  auto gradient = logits;
  std::vector<float> losses(size(tokens));
  cross_entropy_rows(
      LogitRows<Number>{tokens, vocabulary, stride, gradient.data(), targets.data(), losses.data(), true}, 0,
      tokens);

  OnCard<Number> card_logits(logits);
  OnCard<std::int64_t> card_targets(targets);
  OnCard<float> card_losses(losses.size());
  const auto launch = [&] {
    cross_entropy_rows_device(LogitRows<Number>{tokens, vocabulary, stride, card_logits.data(),
                                                card_targets.data(), card_losses.data(), true},
                              nullptr);
  };
  launch();
  const auto first_gradient = card_logits.on_host();
  const auto first_losses = card_losses.on_host();
  card_logits.set(logits);
  launch();
  Account account(fmt::format("cross entropy {} {} x {}", precision<Number>, tokens, vocabulary),
                  tolerance<Number>);
  account.compare(gradient, first_gradient, card_logits.on_host());
  account.compare(losses, first_losses, card_losses.on_host());
  account.tell(milliseconds(launch), 3.0 * static_cast<double>(logits.size() * sizeof(Number)));
}

void gate_case(std::int64_t tokens, std::int64_t experts) {
  const GateShape shape{tokens, experts, std::min(active, experts)};
  const auto logits = normal(tokens * experts, 1.0F, 7), d_gate = normal(tokens * experts, 1.0F, 8);
  const auto d_probabilities = normal(experts, 1.0F, 9);
  std::vector<float> probabilities(logits.size()), gate(logits.size()), d_logits(logits.size());
  std::vector<std::uint8_t> chosen(logits.size());
  std::vector<float> load(size(2 * experts));
  const GateForward forward{shape, logits.data(), probabilities.data(), gate.data(), chosen.data()};
  gate_forward(forward, 0, tokens);
  gate_load(forward, {load.data(), load.data() + experts});
  gate_backward(
      {shape, probabilities.data(), gate.data(), d_gate.data(), d_probabilities.data(), d_logits.data()}, 0,
      tokens);

  OnCard<float> card_logits(logits), card_d_gate(d_gate), card_d_probabilities(d_probabilities);
  OnCard<float> card_probabilities(logits.size()), card_gate(logits.size()), card_d_logits(logits.size());
  OnCard<std::uint8_t> card_chosen(logits.size());
  OnCard<float> card_load(load.size());
  const auto launch = [&] {
    const GateForward pass{shape, card_logits.data(), card_probabilities.data(), card_gate.data(),
                           card_chosen.data()};
    gate_forward_device(pass, nullptr);
    gate_load_device(pass, {card_load.data(), card_load.data() + experts}, nullptr);
    gate_backward_device({shape, card_probabilities.data(), card_gate.data(), card_d_gate.data(),
                          card_d_probabilities.data(), card_d_logits.data()},
                         nullptr);
  };
  launch();
  const auto first_gate = card_gate.on_host(), first_d_logits = card_d_logits.on_host();
  const auto first_chosen = card_chosen.on_host();
  const auto first_load = card_load.on_host();
  launch();
  Account account(fmt::format("gate, all passes, {} x {}", tokens, experts), tolerance<float>);
  account.compare(gate, first_gate, card_gate.on_host());
  account.compare(chosen, first_chosen, card_chosen.on_host());
  account.compare(load, first_load, card_load.on_host());
  account.compare(d_logits, first_d_logits, card_d_logits.on_host());
  account.tell(milliseconds(launch), 8.0 * static_cast<double>(logits.size() * sizeof(float)));
}

template <class Number>
void norm_case(const NormShape& shape) {
  const std::int64_t count = shape.rows * shape.width;
  const auto x = normal<Number>(count, 1.0F, 13), added = normal<Number>(count, 1.0F, 14),
             d_y = normal<Number>(count, 1.0F, 15), d_sum = normal<Number>(count, 1.0F, 16),
             weight = normal<Number>(shape.width, 1.0F, 17);
  const auto reader = normal(shape.readers * shape.width, 0.1F, 18),
             d_read = normal(shape.rows * shape.readers, 1.0F, 19);
  std::vector<Number> sum(size(count)), y(size(count)), d_x(size(count));
  std::vector<float> mean(size(shape.rows)), inverse(size(shape.rows)), read(d_read.size());
  // Both passes, in host memory or on the card.
  const auto forward = [&](auto&... of) { return NormForward<Number>{shape, 1e-5F, of.data()...}; };
  const auto backward = [&](auto&... of) { return NormBackward<Number>{shape, of.data()...}; };
  norm_forward(forward(x, added, weight, weight, reader, sum, y, mean, inverse, read), 0, shape.rows);
  norm_backward(backward(sum, weight, reader, mean, inverse, d_y, d_read, d_sum, d_x), 0, shape.rows);

  OnCard<Number> card_x(x), card_added(added), card_d_y(d_y), card_d_sum(d_sum), card_weight(weight);
  OnCard<float> card_reader(reader), card_d_read(d_read), card_mean(mean), card_inverse(inverse),
      card_read(read);
  OnCard<Number> card_sum(sum.size()), card_y(y.size()), card_d_x(d_x.size());
  const auto launch = [&] {
    norm_forward_device(forward(card_x, card_added, card_weight, card_weight, card_reader, card_sum, card_y,
                                card_mean, card_inverse, card_read),
                        nullptr);
    norm_backward_device(backward(card_sum, card_weight, card_reader, card_mean, card_inverse, card_d_y,
                                  card_d_read, card_d_sum, card_d_x),
                         nullptr);
  };
  launch();
  const auto first_y = card_y.on_host(), first_d_x = card_d_x.on_host();
  const auto first_read = card_read.on_host();
  launch();
  Account account(fmt::format("{} norm, both passes, {} E {}", shape.centred ? "layer" : "RMS",
                              precision<Number>, shape.readers),
                  tolerance<Number>);
  account.compare(y, first_y, card_y.on_host());
  account.compare(read, first_read, card_read.on_host());
  account.compare(d_x, first_d_x, card_d_x.on_host());
  account.tell(milliseconds(launch), 8.0 * static_cast<double>(count * sizeof(Number)));
}

void norm_cases(std::int64_t tokens) {
  for (const bool centred : {true, false})
    for (const std::int64_t readers : {0, 2, 8}) {
      const NormShape shape{tokens, centred ? 768 : 576, readers, centred};
      norm_case<float>(shape);
      norm_case<Bfloat16>(shape);
    }
}

// Of the slabs of four ranks, on one card.
void rank_sum_case(std::int64_t count, bool in_bfloat16) {
  constexpr int ranks = 4;
  std::vector<std::vector<float>> numbers;
  std::deque<OnCard<float>> slabs;
  for (std::uint32_t rank = 0; rank < ranks; ++rank) numbers.push_back(normal(count, 1.0F, 20 + rank));
  for (const std::vector<float>& of_rank : numbers) slabs.emplace_back(of_rank);
  std::vector<float> expected(size(count));
  OnCard<float> sums(expected.size());
  const auto sum_of = [&](auto& of_ranks, float* to) {
    RankSum sum{.ranks = ranks, .count = count, .numbers = {}, .sums = to, .in_bfloat16 = in_bfloat16};
    for (std::size_t rank = 0; rank < ranks; ++rank) sum.numbers[rank] = of_ranks[rank].data();
    return sum;
  };
  rank_sum(sum_of(numbers, expected.data()));
  const auto launch = [&] { rank_sum_device(sum_of(slabs, sums.data()), nullptr); };
  launch();
  const auto first = sums.on_host();
  launch();
  Account account(fmt::format("sum of {} ranks{}, {}", ranks, in_bfloat16 ? " in bf16" : "", count), 0.0);
  account.compare(expected, first, sums.on_host());
  account.tell(milliseconds(launch), (ranks + 1.0) * static_cast<double>(count) * sizeof(float));
}

void adamw_case(std::int64_t count) {
  const auto values = normal(count, 1.0F, 10), gradients = normal(count, 1.0F, 11),
             first = normal(count, 1.0F, 12);
  const std::vector<float> second(size(count), 1.0F);
  const AdamwStep step = adamw_step(1e-3, 0.9, 0.95, 1e-8, 0.01, 10);
  auto expected = values, first_moments = first, second_moments = second;
  adamw_host({expected.data(), gradients.data(), first_moments.data(), second_moments.data(), size(count)},
             step);

  OnCard<float> card_values(values), card_gradients(gradients), card_first(first), card_second(second);
  const auto launch = [&] {
    adamw_device(
        {card_values.data(), card_gradients.data(), card_first.data(), card_second.data(), size(count)}, step,
        nullptr);
  };
  launch();
  const auto once = card_values.on_host(), once_first = card_first.on_host(),
             once_second = card_second.on_host();
  card_values.set(values);
  card_first.set(first);
  card_second.set(second);
  launch();
  Account account(fmt::format("adamw {}", count), tolerance<float>);
  account.compare(expected, once, card_values.on_host());
  account.compare(first_moments, once_first, card_first.on_host());
  account.compare(second_moments, once_second, card_second.on_host());
  account.tell(milliseconds(launch), 7.0 * static_cast<double>(count) * sizeof(float));
}

void all_cases(bool small) {
  const std::int64_t tokens = small ? 70 : 8192;
  Account::title();
  mixture_cases<float>(tokens);
  mixture_cases<Bfloat16>(tokens);
  for (const std::int64_t vocabulary : {50257, 50304})
    for (const std::int64_t rows :
         small ? std::vector<std::int64_t>{1, 5} : std::vector<std::int64_t>{1, 631, 8192}) {
      cross_entropy_case<float>(rows, vocabulary);
      cross_entropy_case<Bfloat16>(rows, vocabulary);
    }
  for (const std::int64_t experts : {2, 4, 8}) gate_case(tokens, experts);
  norm_cases(tokens);
  for (const bool in_bfloat16 : {false, true}) rank_sum_case(small ? 1000 : 1'179'648, in_bfloat16);
  adamw_case(small ? 1000 : 1'916'928);
}

}  // namespace

}  // namespace comigs::kernels

int main(int argc, char** argv) {
  using namespace comigs::kernels;
  int devices = 0;
  if (const cudaError_t code = cudaGetDeviceCount(&devices); code != cudaSuccess || devices == 0) {
    fmt::print(stderr, "error: no CUDA device is visible: {}\n", cudaGetErrorString(code));
    return 1;
  }
  try {
    all_cases(argc > 1 && std::string_view(argv[1]) == "small");
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  fmt::print("{}\n", Account::wrong() == 0 ? std::string("every kernel agrees with the host")
                                           : fmt::format("{} do not agree", Account::wrong()));
  return Account::wrong() == 0 ? 0 : 1;
}
