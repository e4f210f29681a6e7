// Every device kernel against its host version, on the same numbers and at the sizes of GPT-2 124M: the
// worst difference of all that it writes, whether a second run gives the same bits, time, memory traffic.
//   test_kernels_card [small]     small: few tokens, for compute-sanitizer
// Exit code: 0 all agree; 1 not all, or no device.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "card_account.hpp"
#include "card_memory.hpp"
#include "comigs/kernels/adamw.hpp"
#include "comigs/kernels/cross_entropy.hpp"
#include "comigs/kernels/gate.hpp"
#include "comigs/kernels/norm.hpp"
#include "comigs/kernels/rank_sum.hpp"
#include "mixture_card.hpp"

namespace comigs::kernels {

namespace {

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
