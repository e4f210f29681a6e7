// What is done with a base model alone: it is evaluated, continues texts, is inspected, loses weights.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/finished/continuations.hpp"
#include "comigs/finished/evaluations.hpp"
#include "comigs/finished/inspection.hpp"
#include "comigs/finished/pruner.hpp"
#include "comigs/train/evaluation.hpp"
#include "finished/folders.hpp"
#include "support/messages.hpp"

namespace comigs::finished {

namespace {

using test::check_contains;
using test::message_of;

const c10::Device cpu(c10::DeviceType::CPU);

struct Folders : test::FinishedFolders {
  [[nodiscard]] config::ModelChoice choice() const {
    config::ModelChoice choice;
    choice.model = base;
    return choice;
  }
  [[nodiscard]] config::Prune pruning() const {
    config::Prune options;
    options.model = base;
    options.data = data;
    options.output = (folder / "pruned").string();
    options.pattern = {.zeros = 2, .of = 4};
    options.calibration_sequences = 3;
    return options;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(of_a_base, Folders)

BOOST_AUTO_TEST_CASE(every_users_texts_are_evaluated) {
  config::Evaluate options{.models = choice(), .data = data};
  options.context_tokens = 16;
  const Evaluations evaluations(options);
  BOOST_TEST(evaluations.count() == 2);
  std::vector<std::string> told;
  const std::vector<ModelEvaluation> found =
      evaluations.run(cpu, [&](const std::string& text) { told.push_back(text); });
  BOOST_TEST(told == (std::vector<std::string>{"German", "Dutch"}), boost::test_tools::per_element());
  const auto model = test::tiny_base(architecture);
  const adapter::Parameters nothing = evaluations.models().models.of_base(cpu);
  for (const ModelEvaluation& one : found) {
    const test::Tokens ids = tokens_of(one.texts + "-test.bin", 90);
    BOOST_TEST(one.model.empty());
    BOOST_TEST(one.evaluation.tokens == 89);
    // The mean loss of all tokens but the first, in windows of 16 that do not overlap.
    const data::TokenShard shard = test::write_shard(folder / "again.bin", ids, vocabulary);
    const Evaluation again =
        train::evaluate(*model, nothing, shard, {.context = 16, .sequences = 1}).evaluation;
    BOOST_TEST(one.evaluation.loss() == again.loss(), boost::test_tools::tolerance(1e-6));
  }
}

BOOST_AUTO_TEST_CASE(windows_that_the_base_has_no_positions_for_are_refused) {
  config::Evaluate options{.models = choice(), .data = data};
  options.context_tokens = 25;
  check_contains(message_of<ConfigError>([&] { const Evaluations evaluations(options); }),
                 {"--context-tokens 25", "24 positions"});
}

BOOST_AUTO_TEST_CASE(a_text_goes_on_with_the_likeliest_token) {
  test::write_text(folder / "prompts.json",
                   R"({"format": "comigs-probes", "format_version": 1, "vocabulary": 37,
                       "probes": [{"name": "one", "ids": [3, 1, 4], "text": ["a", "b", "c"]}]})");
  config::Generate options{.models = choice(), .prompts = (folder / "prompts.json").string(), .tokens = 1};
  const Continuations continuations(options);
  const std::vector<Continuation> found = continuations.run(cpu, [](const std::string&) {});
  BOOST_TEST_REQUIRE(found.size() == 1u);
  // A text's last token's loss is least where it is the likeliest one.
  const auto model = test::tiny_base(architecture);
  const adapter::Parameters nothing = continuations.models().of_base(cpu);
  std::vector<double> losses;
  for (std::int64_t next = 0; next < vocabulary; ++next) {
    const data::TokenShard shard = test::write_shard(folder / "text.bin", {3, 1, 4, next}, vocabulary);
    losses.push_back(
        train::evaluate(*model, nothing, shard, {.context = 3, .sequences = 1}).evaluation.loss());
  }
  BOOST_TEST(found[0].ids.at(0) == std::ranges::min_element(losses) - losses.begin());
  BOOST_TEST(!continuations.text_of(found[0]).has_value());  // no tokenizer.json
  options.tokens = 22;
  check_contains(message_of<DataError>([&] { const Continuations more(options); }),
                 {"'one' has 3 tokens", "--tokens 22", "24 positions"});
}

BOOST_AUTO_TEST_CASE(a_folder_is_told_by_what_lies_in_it) {
  BOOST_TEST(inspected(base).at("kind") == "base model");
  BOOST_TEST(inspected(base).at("layers") == 2);
  const nlohmann::ordered_json set = inspected(data);
  BOOST_TEST(set.at("kind") == "data set");
  BOOST_TEST(set.at("users").at(1).at("test") == 90);
  check_contains(message_of<DataError>([&] { (void)inspected(folder); }), {"none of these lies there"});
}

BOOST_AUTO_TEST_CASE(zeros_are_where_they_were_asked_for) {
  const config::Prune options = pruning();
  const Pruner pruner(options);
  std::int64_t layers = 0;
  PrunedBase pruned = pruner.run(cpu, [&] { ++layers; });
  BOOST_TEST(layers == architecture.layers);
  write_pruned_base(options.output, pruned);
  const nlohmann::ordered_json found = inspected(options.output);
  BOOST_TEST(found.at("pruning").at("share_of_zeros") == 0.5);
  BOOST_TEST(found.at("pruning").at("method") == "sparsegpt");
  for (const auto& [name, matrix] : pruned.matrices) {
    // [in, out]: two of each four inputs of an output.
    const at::Tensor zeros = (matrix == 0).reshape({matrix.size(0) / 4, 4, matrix.size(1)}).sum(1);
    BOOST_TEST_CONTEXT(name) BOOST_TEST((zeros == 2).all().item<bool>());
  }
  BOOST_TEST(Pruner(options).is_made());
  check_contains(message_of<ConfigError>([&] { write_pruned_base(options.output, pruned); }),
                 {"holds a model's"});
}

BOOST_AUTO_TEST_CASE(a_base_that_was_pruned_otherwise_is_told_of) {
  config::Prune options = pruning();
  BOOST_TEST(!Pruner(options).is_made());
  PrunedBase pruned = Pruner(options).run(cpu, [] {});
  write_pruned_base(options.output, pruned);
  options.seed = 1;
  check_contains(message_of<ConfigError>([&] { (void)Pruner(options).is_made(); }),
                 {"pruned/comigs-pruning.json: 'digest' is", "'seed' is 0, expected 1", "--replace"});
  options.replace = true;
  const Pruner pruner(options);
  BOOST_TEST(!pruner.is_made());
  pruned = pruner.run(cpu, [] {});
  write_pruned_base(options.output, pruned, true);
  BOOST_TEST(pruner.is_made());
}

BOOST_AUTO_TEST_CASE(runs_of_inputs_are_not_cut) {
  config::Prune options = pruning();
  options.pattern = {.zeros = 1, .of = 3};
  check_contains(message_of<ConfigError>([&] { const Pruner pruner(options); }),
                 {"--pattern", "has 16 inputs", "expected a divisor"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::finished
