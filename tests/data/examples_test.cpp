// Instruction data: what an index may say, and what batches make of its examples.
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <map>
#include <numeric>

#include "comigs/base/error.hpp"
#include "comigs/data/batch.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tokens.hpp"

namespace comigs::data {

namespace {

using test::check_contains;
using test::message_of;
const auto per_element = boost::test_tools::per_element();

constexpr std::int64_t T = 8;
const StreamKey some_key{.seed = 5, .user = 1, .stream = Stream::train_batch, .round = 2, .step = 3};

// Token i of the file is i + 1, so that a token tells where it lies and is no padding.
struct ExamplesFolder : TemporaryFolder {
  std::vector<Example> examples = test::examples_of({{3, 2}, {1, 1}, {2, 7}, {4, 3}});

  [[nodiscard]] ShardDescription described() const {
    std::int64_t count = 0;
    for (const Example& example : examples) count = std::max(count, example.begin + example.tokens());
    test::Tokens tokens(static_cast<std::size_t>(count));
    std::iota(tokens.begin(), tokens.end(), 1);
    return test::describe_examples(folder / "split.bin", tokens, examples);
  }
  [[nodiscard]] TokenShard shard() const { return {described(), 1000}; }

  /// What a file is refused with whose index was changed, but for the length of its file.
  [[nodiscard]] std::string refusal(std::size_t number, const Example& other) {
    const ShardDescription description = described();
    std::vector<Example> changed = examples;
    changed[number] = other;
    test::write_index(description.examples->file, changed);
    return message_of<DataError>([&] { (void)TokenShard(description, 1000); });
  }
};

// Row `row`, as plainly as it can be said.
void check_row(const Batch& batch, std::int64_t row, const Example& example) {
  for (std::int64_t t = 0; t < batch.context; ++t) {
    const auto at = static_cast<std::size_t>(row * batch.context + t);
    const bool inside = t + 1 < example.tokens(), answers = inside && t + 1 >= example.instruction;
    BOOST_TEST(batch.tokens[at] == (inside ? example.begin + t + 1 : 0));
    BOOST_TEST(batch.targets[at] == (answers ? example.begin + t + 2 : no_target));
  }
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(examples, ExamplesFolder)

BOOST_AUTO_TEST_CASE(an_index_is_read_as_it_lies) {
  const TokenShard text = shard();
  BOOST_TEST(text.has_examples());
  BOOST_TEST(text.size() == 23);
  BOOST_TEST_REQUIRE(text.examples().size() == 4u);
  BOOST_TEST(text.examples()[2].begin == 7);
  BOOST_TEST(text.examples()[2].instruction == 2);
  BOOST_TEST(text.examples()[2].response == 7);
  BOOST_TEST(text.examples()[2].category == 0);
}

BOOST_AUTO_TEST_CASE(a_beginning_has_whole_examples) {
  const TokenShard text = shard();
  for (const auto& [tokens, count, size] : {std::tuple{23, 4u, 23},
                                            {100, 4u, 23},
                                            {22, 3u, 16},
                                            {16, 3u, 16},
                                            {15, 2u, 7},
                                            {5, 1u, 5},
                                            {2, 1u, 5}}) {
    BOOST_TEST(text.leading(tokens).examples().size() == count);
    BOOST_TEST(text.leading(tokens).size() == size);
  }
}

BOOST_AUTO_TEST_CASE(targets_are_the_tokens_of_the_response) {
  const TokenShard text = shard();
  const EvaluationBatches all(text, T, 4);
  BOOST_TEST(all.sequences() == 4);
  BOOST_TEST(all.size() == 1);
  const Batch batch = all.batch(0);
  BOOST_TEST(batch.predicted == 13);
  for (std::int64_t row = 0; row < 4; ++row)
    check_row(batch, row,
              text.examples()[static_cast<std::size_t>(batch.example[static_cast<std::size_t>(row)])]);
}

// The lengths are 5, 2, 9 and 7; of batches of any size every example is in one, none longer than it has to
// be.
BOOST_AUTO_TEST_CASE(an_evaluation_takes_the_longest_examples_first) {
  const TokenShard text = shard();
  for (const std::int64_t at_a_time : {1, 2, 3, 4, 9}) {
    const EvaluationBatches batches(text, T, at_a_time);
    BOOST_TEST(batches.size() == (4 + at_a_time - 1) / at_a_time);
    std::vector<std::int64_t> order;
    for (std::int64_t index = 0; index < batches.size(); ++index) {
      const Batch batch = batches.batch(index);
      for (std::int64_t row = 0; row < batch.sequences; ++row) {
        const std::int64_t example = batch.example[static_cast<std::size_t>(row)];
        check_row(batch, row, text.examples()[static_cast<std::size_t>(example)]);
        if (row == 0)
          BOOST_TEST(batch.context == text.examples()[static_cast<std::size_t>(example)].tokens() - 1);
        order.push_back(example);
      }
    }
    BOOST_TEST(order == (std::vector<std::int64_t>{2, 3, 0, 1}), per_element);
  }
}

BOOST_AUTO_TEST_CASE(examples_are_drawn_alike_from_all_shards) {
  const TokenShard text = shard();
  const std::vector<TokenShard> shards = {text, text.leading(7)};
  constexpr std::int64_t B = 6000;
  const Batch batch = sample_batch(shards, B, T, some_key);
  std::map<std::int64_t, int> drawn;
  std::int64_t predicted = 0, second = 0;
  for (std::int64_t row = 0; row < B; ++row) {
    const std::int64_t begin = batch.tokens[static_cast<std::size_t>(row * T)] - 1;
    const auto example = std::find_if(text.examples().begin(), text.examples().end(),
                                      [&](const Example& one) { return one.begin == begin; });
    BOOST_TEST_REQUIRE((example != text.examples().end()));
    if (row < 20) check_row(batch, row, *example);
    const std::int64_t number = batch.example[static_cast<std::size_t>(row)];
    BOOST_TEST((number < 4 ? number : number - 4) == example - text.examples().begin());
    second += number < 4 ? 0 : 1;
    ++drawn[begin];
    predicted += example->response;
  }
  BOOST_TEST(batch.predicted == predicted);
  BOOST_TEST(std::abs(second - B / 3) < 160);  // two of six places are in the second shard
  // The first two are in both shards: places 2, 2, 1 and 1 of six.
  for (const auto& [begin, places] : {std::pair{0, 2}, {5, 2}, {7, 1}, {16, 1}})
    BOOST_TEST(std::abs(drawn[begin] - 1000 * places) < 160);
}

BOOST_AUTO_TEST_CASE(predicted_tokens_are_those_of_the_parts_together) {
  const TokenShard text = shard();
  std::int64_t sum = 0;
  for (const std::int64_t part : {0, 1, 2})
    sum += sample_batch({&text, 1}, 3, T, some_key, 3 * part).predicted;
  BOOST_TEST(predicted_tokens({&text, 1}, 9, T, some_key) == sum);
  const Batch whole = sample_batch({&text, 1}, 9, T, some_key);
  BOOST_TEST(whole.predicted == sum);
  BOOST_TEST(slice(whole, 0, 4).predicted + slice(whole, 4, 5).predicted == sum);
  BOOST_TEST(slice(whole, 4, 5).example == std::vector(whole.example.begin() + 4, whole.example.end()),
             per_element);
}

BOOST_AUTO_TEST_CASE(sequences_of_a_file_that_is_not_open) {
  const ShardDescription description = described();
  BOOST_TEST(evaluation_sequences(description, 23, T) == 4);
  BOOST_TEST(evaluation_sequences(description, 12, T) == 3);  // 12 / 23 of 4, rounded up
  const ShardDescription plain{.file = {}, .tokens = 23};
  BOOST_TEST(evaluation_sequences(plain, 23, T) == evaluation_windows(23, T));
}

BOOST_AUTO_TEST_CASE(what_no_index_may_say) {
  constexpr std::int64_t huge = std::int64_t{1} << 62;
  for (const Example& other : {Example{5, 0, 2},
                               {5, 2, 0},
                               {5, -1, 3},
                               {5, 3, -1},
                               {5, huge, huge},
                               {5, 1, 40},
                               {-5, 1, 1},
                               {4, 1, 1},
                               {huge, 1, 1},
                               {5, 1, 2}})
    check_contains(refusal(1, other), {"split.bin.examples", "example "});
  check_contains(refusal(1, {5, 1, 1, 1}),
                 {"split.bin.examples", "example 1 is of category 1, expected 0 to 0"});
  check_contains(refusal(1, {5, 1, 1, -1}), {"category -1"});
  // Too few tokens in all.
  check_contains(refusal(3, {16, 4, 2}), {"split.bin.examples", "22 tokens in its examples", "promises 23"});
}

BOOST_AUTO_TEST_CASE(what_the_manifest_promises) {
  ShardDescription description = described();
  description.examples->longest = 10;
  check_contains(message_of<DataError>([&] { (void)TokenShard(description, 1000); }),
                 {"split.bin.examples", "9 in the longest", "10"});
  description = described();
  description.examples->count = 5;
  check_contains(message_of<DataError>([&] { (void)TokenShard(description, 1000); }),
                 {"split.bin.examples", "128 bytes found", "5 examples of 32 bytes"});
  description = described();
  description.examples->sha256 = "ab";
  check_contains(message_of<DataError>([&] { (void)TokenShard(description, 1000); }),
                 {"split.bin.examples", "SHA-256"});
  description = described();
  description.examples->file = folder / "nowhere";
  check_contains(message_of<DataError>([&] { (void)TokenShard(description, 1000); }), {"nowhere"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
