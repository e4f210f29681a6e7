// Evaluation of a whole split against a loop that predicts one token at a time from the tokens before it.
#include "comigs/train/evaluation.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "comigs/adapter/forward.hpp"
#include "comigs/base/sha256.hpp"
#include "support/random_parameters.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"
#include "support/tokens.hpp"

namespace comigs::train {

namespace {

constexpr std::int64_t T = 8;
namespace tt = boost::test_tools;

struct Split : TemporaryFolder {
  std::unique_ptr<model::BaseModel> base = test::tiny_base();
  adapter::Parameters parameters =
      test::random_parameters(test::tiny_architecture(), {.experts = 3, .lora_rank = 2, .top_k = 2}, 1);
  test::Tokens tokens;

  [[nodiscard]] data::TokenShard shard(std::int64_t size) {
    tokens = test::random_tokens(size, 37, 5);
    return test::write_shard(folder / "split.bin", tokens, 37);
  }

  /// Minus the log-probability of every token but the first, given those before it in its window.
  [[nodiscard]] Evaluation by_token(std::int64_t count) const {
    const at::NoGradGuard no_gradients;
    Evaluation sum;
    for (std::int64_t target = 1; target < count; ++target) {
      const std::int64_t begin = (target - 1) / T * T;
      std::vector<std::int64_t> before(tokens.begin() + begin, tokens.begin() + target);
      const at::Tensor input = at::from_blob(before.data(), {1, target - begin}, at::kLong);
      const at::Tensor last = adapter::forward(*base, input, parameters).hidden[target - begin - 1];
      const at::Tensor logits = base->head().mv(last).to(at::kDouble);
      sum.loss_sum -= logits.log_softmax(0)[tokens[static_cast<std::size_t>(target)]].item<double>();
      ++sum.tokens;
    }
    return sum;
  }

  [[nodiscard]] SplitReport run(const data::TokenShard& split, std::int64_t sequences,
                                std::int64_t count = 0) const {
    return evaluate(*base, parameters, split, {.context = T, .sequences = sequences, .tokens = count});
  }

  /// The work of so many processes; they run as many batches as there are.
  [[nodiscard]] SplitReport together(const data::TokenShard& split, EvaluationOptions options,
                                     std::int64_t processes, std::int64_t batches) const {
    std::vector<double> sums;
    std::int64_t run = 0;
    options.stop = [&] { return ++run < 0; };
    for (std::int64_t process = 0; process < processes; ++process)
      std::ranges::copy(batch_sums(*base, parameters, split, options, {.index = process, .of = processes}),
                        std::back_inserter(sums));
    BOOST_TEST(run == batches);
    return report(*base, parameters, options.categories, sums, processes);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(evaluations, Split)

BOOST_AUTO_TEST_CASE(every_token_is_predicted_once) {
  for (const std::int64_t size : {2, 7, 8, 9, 10, 17, 24, 25, 45}) {
    const data::TokenShard split = shard(size);
    const Evaluation found = run(split, 2).evaluation, expected = by_token(size);
    BOOST_TEST(found.tokens == size - 1);
    BOOST_TEST(found.tokens == expected.tokens);
    BOOST_TEST(found.loss_sum == expected.loss_sum, tt::tolerance(1e-5));
    BOOST_TEST(found.perplexity() == std::exp(expected.loss_sum / static_cast<double>(size - 1)),
               tt::tolerance(1e-4));
  }
}

BOOST_AUTO_TEST_CASE(number_of_sequences_at_a_time_does_not_matter) {
  const data::TokenShard split = shard(100);
  const SplitReport one = run(split, 1);
  for (const std::int64_t sequences : {2, 3, 13, 64}) {
    const SplitReport other = run(split, sequences);
    BOOST_TEST(other.evaluation.tokens == one.evaluation.tokens);
    BOOST_TEST(other.evaluation.loss_sum == one.evaluation.loss_sum, tt::tolerance(1e-6));
    for (std::size_t i = 0; i < one.routing.score.size(); ++i)
      BOOST_TEST(std::abs(other.routing.score[i] - one.routing.score[i]) < 1e-5f);
  }
}

BOOST_AUTO_TEST_CASE(same_numbers_give_the_same_bits) {
  const data::TokenShard split = shard(60);
  const SplitReport first = run(split, 4), second = run(split, 4);
  BOOST_TEST(first.evaluation.loss_sum == second.evaluation.loss_sum);
  BOOST_TEST((first.routing.score == second.routing.score));
  BOOST_TEST((first.routing.entropy == second.routing.entropy));
}

BOOST_AUTO_TEST_CASE(processes_that_share_the_batches_find_the_same_bits) {
  const data::TokenShard split = shard(60);  // eight windows: four batches
  const EvaluationOptions options{.context = T, .sequences = 2};
  const SplitReport alone = evaluate(*base, parameters, split, options);
  for (const std::int64_t processes : {1, 2, 3, 4, 7}) {
    const SplitReport found = together(split, options, processes, 4);
    BOOST_TEST(found.evaluation.tokens == 59);
    BOOST_TEST(found.evaluation.loss_sum == alone.evaluation.loss_sum);
    BOOST_TEST((found.routing.score == alone.routing.score));
    BOOST_TEST((found.routing.load == alone.routing.load));
    BOOST_TEST((found.routing.entropy == alone.routing.entropy));
  }
}

BOOST_AUTO_TEST_CASE(of_examples_by_category_too) {
  parameters = test::random_parameters(test::tiny_architecture(),
                                       {.experts = 3,
                                        .prompt_tokens = 2,
                                        .prompt_layer = 1,
                                        .gate_width = 5,
                                        .gate = adapter::Gate::sequence,
                                        .kind = &adapter::kinds::prompts},
                                       1);
  const data::TokenShard split = test::write_examples(folder / "examples.bin", 37, 3);
  const EvaluationOptions options{.context = T, .sequences = 2, .categories = 3};
  const SplitReport alone = evaluate(*base, parameters, split, options);
  BOOST_TEST_REQUIRE(alone.by_category.evaluation.size() == 3u);
  BOOST_TEST_REQUIRE(alone.by_category.gate.size() == 9u);
  for (const std::int64_t processes : {2, 3, 5}) {
    const SplitReport found = together(split, options, processes, 3);
    BOOST_TEST(found.evaluation.loss_sum == alone.evaluation.loss_sum);
    for (std::size_t category = 0; category < 3; ++category) {
      BOOST_TEST(found.by_category.evaluation[category].tokens > 0);
      BOOST_TEST(found.by_category.evaluation[category].loss_sum ==
                 alone.by_category.evaluation[category].loss_sum);
    }
    BOOST_TEST((found.by_category.gate == alone.by_category.gate));
    BOOST_TEST((found.by_category.gate_entropy == alone.by_category.gate_entropy));
    BOOST_TEST(found.by_category.gate_accuracy == alone.by_category.gate_accuracy);
    // Where nothing is routed, nothing is a number.
    BOOST_TEST(test::same_bits(at::tensor(found.routing.score), at::tensor(alone.routing.score)));
  }
}

BOOST_AUTO_TEST_CASE(evaluations_of_different_texts_are_told_apart) {
  const EvaluationOptions options{.context = T, .sequences = 2};
  const auto write = [&](const char* name, const test::Tokens& text, bool promised) {
    test::write_tokens(folder / name, text);
    return data::TokenShard({.file = folder / name,
                             .tokens = std::ssize(text),
                             .sha256 = promised ? sha256_of_file(folder / name) : std::string()},
                            37);
  };
  const test::Tokens text = test::random_tokens(60, 37, 5);
  const data::TokenShard one = write("one.bin", text, true), copy = write("copy.bin", text, true),
                         other = write("other.bin", test::random_tokens(60, 37, 6), true),
                         unknown = write("unknown.bin", text, false);
  const std::string key = evaluation_key(one, options);
  BOOST_TEST(key == evaluation_key(copy, options));
  BOOST_TEST(key != evaluation_key(other, options));
  BOOST_TEST(key != evaluation_key(one.leading(30), options));
  BOOST_TEST(key != evaluation_key(one, {.context = T, .sequences = 3}));
  BOOST_TEST(key != evaluation_key(one, {.context = T, .sequences = 2, .tokens = 30}));
  BOOST_TEST(evaluation_key(one.leading(30), options) ==
             evaluation_key(one, {.context = T, .sequences = 2, .tokens = 30}));
  BOOST_TEST(evaluation_key(unknown, options).empty());
}

BOOST_AUTO_TEST_CASE(beginning_of_a_split) {
  const data::TokenShard split = shard(90);
  const Evaluation part = run(split, 4, 30).evaluation, expected = by_token(30);
  BOOST_TEST(part.tokens == 29);
  BOOST_TEST(part.loss_sum == expected.loss_sum, tt::tolerance(1e-5));
  BOOST_TEST(run(split, 4, 1000).evaluation.tokens == 89);
}

BOOST_AUTO_TEST_CASE(one_token_has_nothing_to_predict) {
  const Evaluation nothing = run(shard(1), 4).evaluation;
  BOOST_TEST(nothing.tokens == 0);
  BOOST_TEST(std::isnan(nothing.perplexity()));
}

BOOST_AUTO_TEST_CASE(routing_is_averaged_over_predicted_tokens) {
  // 21 tokens: windows of 8, 8 and 4 targets; the padding of the last must not count.
  const SplitReport report = run(shard(21), 2);
  at::Tensor score = at::zeros({2, 3}, at::kDouble), load = at::zeros({2, 3}, at::kDouble),
             entropy = at::zeros({2}, at::kDouble);
  const at::NoGradGuard no_gradients;
  for (std::int64_t begin = 0; begin < 20; begin += T) {
    const std::int64_t count = std::min<std::int64_t>(T, 20 - begin);
    const at::Tensor input = at::from_blob(tokens.data() + begin, {1, count}, at::kLong);
    const std::vector<adapter::LayerRouting> routing = adapter::forward(*base, input, parameters).routing;
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      const at::Tensor gate = routing[static_cast<std::size_t>(layer)].gate.to(at::kDouble);
      score[layer] += gate.sum(0) / 20.0;
      load[layer] += gate.gt(0).sum(0) / 20.0;
      entropy[layer] -= (gate * gate.clamp_min(1e-30).log()).sum() / 20.0;
    }
  }
  const auto as_tensor = [](const std::vector<float>& numbers, at::IntArrayRef shape) {
    return at::tensor(at::ArrayRef<float>(numbers), at::kFloat).view(shape);
  };
  BOOST_TEST_REQUIRE(report.routing.score.size() == 6u);
  BOOST_TEST(test::close(as_tensor(report.routing.score, {2, 3}), score, 1e-5));
  BOOST_TEST(test::close(as_tensor(report.routing.load, {2, 3}), load, 1e-5));
  BOOST_TEST(test::close(as_tensor(report.routing.entropy, {2}), entropy, 1e-5));
  for (const std::int64_t layer : {0, 1}) {
    BOOST_TEST(score[layer].sum().item<double>() == 1.0, tt::tolerance(1e-6));
    BOOST_TEST(load[layer].sum().item<double>() == 2.0, tt::tolerance(1e-6));
  }
}

// Of a single choice the gate is a probability among others, and the entropy that of all of them.
BOOST_AUTO_TEST_CASE(routing_of_a_single_choice) {
  parameters =
      test::random_parameters(test::tiny_architecture(), {.experts = 3, .lora_rank = 2, .top_k = 1}, 1);
  const SplitReport report = run(shard(T + 1), 1);
  const at::NoGradGuard no_gradients;
  const at::Tensor input = at::from_blob(tokens.data(), {1, T}, at::kLong);
  const std::vector<adapter::LayerRouting> routing = adapter::forward(*base, input, parameters).routing;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const at::Tensor p = routing[layer].distribution.to(at::kDouble);
    const at::Tensor score = (p * p.eq(std::get<0>(p.max(-1, true)))).mean(0);
    BOOST_TEST(report.routing.entropy[layer] == (-p * p.log()).sum(-1).mean().item<double>(),
               tt::tolerance(1e-5));
    for (std::int64_t e = 0; e < 3; ++e)
      BOOST_TEST(std::abs(report.routing.score[3 * layer + static_cast<std::size_t>(e)] -
                          score[e].item<float>()) < 1e-6f);
  }
}

BOOST_AUTO_TEST_CASE(unrouted_models_have_no_routing) {
  parameters = test::random_parameters(test::tiny_architecture(),
                                       {.experts = 2, .lora_rank = 2, .gate = adapter::Gate::equal}, 2);
  const SplitReport report = run(shard(30), 2);
  BOOST_TEST(report.routing.score.empty());
  BOOST_TEST(report.routing.load.empty());
  BOOST_TEST(report.routing.entropy.empty());
  BOOST_TEST(report.evaluation.loss_sum == by_token(30).loss_sum, tt::tolerance(1e-5));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
