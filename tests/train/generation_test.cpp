// Continuations against passes over the whole text, and what is drawn against its probabilities.
#include "comigs/train/generation.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include "comigs/adapter/forward.hpp"
#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::train {

namespace {

using Tokens = std::vector<std::int64_t>;

struct Model {
  std::unique_ptr<model::BaseModel> base = test::tiny_base();
  adapter::Parameters parameters =
      test::random_parameters(test::tiny_architecture(), {.experts = 3, .lora_rank = 2, .top_k = 2}, 1);

  [[nodiscard]] at::Tensor next_logits(const Tokens& tokens) const {
    const at::NoGradGuard no_gradients;
    const at::Tensor input = at::tensor(tokens, at::kLong).unsqueeze(0);
    return base->head().mv(adapter::forward(*base, input, parameters).hidden[input.numel() - 1]);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(generation, Model)

BOOST_AUTO_TEST_CASE(the_likeliest_token_follows_whatever_was_kept) {
  Tokens text{5, 2, 9};
  const Tokens added = generate(*base, parameters, text, {.sampling = {}, .tokens = 5, .stops = {}});
  BOOST_TEST(added.size() == 5u);
  for (const std::int64_t token : added) {
    BOOST_TEST(token == next_logits(text).argmax().item<std::int64_t>());
    text.push_back(token);
  }
}

BOOST_AUTO_TEST_CASE(a_gate_by_sequence_reads_what_was_asked_and_nothing_that_was_added) {
  for (const std::int64_t layer : {0, 1}) {
    const adapter::UserModel user{.experts = 3,
                                  .prompt_tokens = 2,
                                  .prompt_layer = layer,
                                  .gate_width = 4,
                                  .gate = adapter::Gate::sequence,
                                  .kind = &adapter::kinds::prompts};
    parameters = test::random_parameters(test::tiny_architecture(), user, 3, 1.0);
    Tokens text{5, 2, 9};
    const at::Tensor asked = at::full({1}, 3, at::kLong);
    bool told = false;  // whether a gate that read on would have chosen otherwise
    for (const std::int64_t token :
         generate(*base, parameters, text, {.sampling = {}, .tokens = 8, .stops = {}})) {
      const at::NoGradGuard no_gradients;
      const at::Tensor input = at::tensor(text, at::kLong).unsqueeze(0);
      const at::Tensor hidden = adapter::forward(*base, input, parameters, asked).hidden;
      BOOST_TEST(token == base->head().mv(hidden[input.numel() - 1]).argmax().item<std::int64_t>());
      told = told || !test::close(next_logits(text), base->head().mv(hidden[input.numel() - 1]), 1e-3);
      text.push_back(token);
    }
    BOOST_TEST(told);
  }
}

BOOST_AUTO_TEST_CASE(prompts_stand_in_front_of_what_was_kept) {
  // Positions 0 to 2 are the prompts'; at the first layer and above it, where learnt positions do not move.
  for (const std::int64_t layer : {0, 1}) {
    const adapter::UserModel user{.experts = 2,
                                  .prompt_tokens = 3,
                                  .prompt_layer = layer,
                                  .gate = adapter::Gate::equal,
                                  .kind = &adapter::kinds::prompts};
    parameters = test::random_parameters(test::tiny_architecture(), user, 2);
    Tokens text{5};
    for (const std::int64_t token :
         generate(*base, parameters, text, {.sampling = {}, .tokens = 5, .stops = {}})) {
      BOOST_TEST(token == next_logits(text).argmax().item<std::int64_t>());
      text.push_back(token);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_stop_is_the_last_token) {
  const Tokens prompt{5, 2, 9};
  const Tokens whole = generate(*base, parameters, prompt, {.sampling = {}, .tokens = 5, .stops = {}});
  const Tokens until =
      generate(*base, parameters, prompt, {.sampling = {}, .tokens = 5, .stops = {36, whole[0]}});
  BOOST_TEST(until == Tokens{whole[0]}, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(tokens_are_drawn_as_often_as_they_are_likely) {
  constexpr int draws = 2000;
  const Tokens prompt{5, 2, 9};
  Sampling sampling{.temperature = 1.5, .top_k = 4, .top_p = 1.0, .seed = 0};
  const at::Tensor likely = sampling_probabilities(next_logits(prompt), sampling);
  std::vector<int> counts(static_cast<std::size_t>(likely.numel()), 0);
  for (; sampling.seed < draws; ++sampling.seed)
    ++counts[static_cast<std::size_t>(
        generate(*base, parameters, prompt, {.sampling = sampling, .tokens = 1, .stops = {}}).front())];
  for (std::size_t token = 0; token < counts.size(); ++token) {
    const double p = likely[static_cast<std::int64_t>(token)].item<double>(),
                 deviation = std::sqrt(draws * p * (1.0 - p));
    BOOST_TEST(std::abs(counts[token] - draws * p) <= 4.0 * deviation, "token " << token);
  }
}

BOOST_AUTO_TEST_CASE(logits_that_are_not_finite_are_told) {
  parameters.values().fill_(std::numeric_limits<float>::quiet_NaN());
  test::check_contains(
      test::message_of<NumericError>(
          [&] { (void)generate(*base, parameters, Tokens{1}, {.sampling = {}, .tokens = 1, .stops = {}}); }),
      {"not finite"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
