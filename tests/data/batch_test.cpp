// Batches: what they take from the shard, and what they depend on.
#include "comigs/data/batch.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

#include <algorithm>
#include <numeric>
#include <set>

#include "support/temporary_folder.hpp"
#include "support/tokens.hpp"

namespace comigs::data {

namespace {

// Token i of the shard is i, so that a token tells where it lies.
struct CountingShard : TemporaryFolder {
  [[nodiscard]] TokenShard shard(std::int64_t size) const {
    test::Tokens tokens(static_cast<std::size_t>(size));
    std::iota(tokens.begin(), tokens.end(), 0);
    return test::write_shard(folder / (std::to_string(size) + ".bin"), tokens, 65536);
  }
};

std::int64_t at(const std::vector<std::int64_t>& numbers, std::int64_t index) {
  return numbers[static_cast<std::size_t>(index)];
}

bool equal(const Batch& a, const Batch& b) {
  return a.sequences == b.sequences && a.context == b.context && a.tokens == b.tokens &&
         a.targets == b.targets && a.predicted == b.predicted;
}

Batch sample(const TokenShard& shard, std::int64_t sequences, std::int64_t context, const StreamKey& key,
             std::int64_t first = 0) {
  return sample_batch({&shard, 1}, sequences, context, key, first);
}

const StreamKey some_key{.seed = 11, .user = 2, .stream = Stream::train_batch, .round = 3, .step = 4};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(batches, CountingShard)

BOOST_AUTO_TEST_CASE(targets_are_the_tokens_that_follow) {
  const Batch batch = sample(shard(500), 20, 16, some_key);
  BOOST_TEST(batch.sequences == 20);
  BOOST_TEST(batch.context == 16);
  BOOST_TEST(batch.predicted == 320);
  BOOST_TEST_REQUIRE(batch.tokens.size() == 320u);
  BOOST_TEST_REQUIRE(batch.targets.size() == 320u);
  BOOST_TEST(std::ranges::count(batch.example, no_example) == 20);
  for (std::int64_t row = 0; row < 20; ++row)
    for (std::int64_t t = 0; t < 16; ++t) {
      BOOST_TEST(at(batch.tokens, 16 * row + t) == at(batch.tokens, 16 * row) + t);
      BOOST_TEST(at(batch.targets, 16 * row + t) == at(batch.tokens, 16 * row + t) + 1);
    }
}

BOOST_AUTO_TEST_CASE(starts_reach_all_of_the_shard_and_nothing_beyond) {
  // 20 tokens have starts 0 .. 3 for a context of 16: the last target is the last token.
  const Batch batch = sample(shard(20), 400, 16, some_key);
  std::set<std::int64_t> starts;
  for (std::int64_t row = 0; row < 400; ++row) starts.insert(at(batch.tokens, 16 * row));
  BOOST_TEST((starts == std::set<std::int64_t>{0, 1, 2, 3}));
  BOOST_TEST(*std::max_element(batch.targets.begin(), batch.targets.end()) == 19);
  // The shortest shard that is allowed has one window.
  const Batch only = sample(shard(17), 3, 16, some_key);
  for (std::int64_t row = 0; row < 3; ++row) BOOST_TEST(at(only.tokens, 16 * row) == 0);
}

BOOST_AUTO_TEST_CASE(starts_are_uniform) {
  const Batch batch = sample(shard(13), 9000, 4, some_key);
  std::vector<int> counts(9, 0);
  for (std::int64_t row = 0; row < 9000; ++row) ++counts[static_cast<std::size_t>(at(batch.tokens, 4 * row))];
  double chi_square = 0.0;
  for (const int count : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  BOOST_TEST(chi_square < 26.12);  // 99.9 % of 8 degrees of freedom
}

BOOST_AUTO_TEST_CASE(a_batch_depends_on_its_key_alone) {
  const TokenShard text = shard(5000);
  const Batch batch = sample(text, 8, 16, some_key);
  (void)sample(text, 5, 7, {.seed = 1});
  BOOST_TEST(equal(sample(text, 8, 16, some_key), batch));
  for (const StreamKey& other :
       {StreamKey{12, 2, Stream::train_batch, 3, 4}, StreamKey{11, 1, Stream::train_batch, 3, 4},
        StreamKey{11, 2, Stream::router_batch, 3, 4}, StreamKey{11, 2, Stream::train_batch, 2, 4},
        StreamKey{11, 2, Stream::train_batch, 3, 5}})
    BOOST_TEST(!equal(sample(text, 8, 16, other), batch));
}

BOOST_AUTO_TEST_CASE(parts_of_a_batch_are_what_the_whole_has_there) {
  const TokenShard text = shard(5000);
  const Batch whole = sample(text, 10, 16, some_key);
  for (const auto& [first, count] : {std::pair{0, 3}, std::pair{3, 3}, std::pair{6, 4}, std::pair{9, 1}})
    BOOST_TEST(equal(sample(text, count, 16, some_key, first), slice(whole, first, count)));
}

BOOST_AUTO_TEST_CASE(slices_count_their_targets) {
  const Batch batch = EvaluationBatches(shard(38), 16, 3).batch(0);  // windows of 16, 16 and 5 targets
  BOOST_TEST(slice(batch, 0, 1).predicted == 16);
  BOOST_TEST(slice(batch, 1, 2).predicted == 21);
  BOOST_TEST(slice(batch, 2, 1).predicted == 5);
}

BOOST_AUTO_TEST_CASE(evaluation_predicts_every_token_but_the_first_once) {
  constexpr std::int64_t T = 8;
  for (const std::int64_t size : {2, 3, 8, 9, 10, 15, 16, 17, 18, 24, 25, 26, 100}) {
    const TokenShard text = shard(size);
    const EvaluationBatches batches(text, T, 2);
    BOOST_TEST(batches.sequences() == evaluation_windows(size, T));
    std::vector<int> predicted(static_cast<std::size_t>(size), 0);
    std::int64_t counted = 0;
    for (std::int64_t index = 0; index < batches.size(); ++index) {
      const Batch batch = batches.batch(index);
      counted += batch.predicted;
      for (std::size_t i = 0; i < batch.targets.size(); ++i) {
        if (batch.targets[i] == no_target) continue;
        // A target follows its token, and its window begins at a multiple of T.
        BOOST_TEST(batch.targets[i] == batch.tokens[i] + 1);
        BOOST_TEST(batch.tokens[i / T * T] % T == 0);
        ++predicted[static_cast<std::size_t>(batch.targets[i])];
      }
    }
    BOOST_TEST(counted == size - 1);
    BOOST_TEST(predicted[0] == 0);
    BOOST_TEST(std::count(predicted.begin() + 1, predicted.end(), 1) == size - 1);
  }
}

BOOST_AUTO_TEST_CASE(evaluation_of_a_beginning_reads_no_further) {
  const TokenShard text = shard(100);
  BOOST_TEST(evaluation_windows(11, 5) == 2);
  const Batch batch = EvaluationBatches(text.leading(11), 5, 2).batch(0);
  BOOST_TEST(batch.predicted == 10);
  BOOST_TEST(*std::max_element(batch.targets.begin(), batch.targets.end()) == 10);
}

BOOST_AUTO_TEST_CASE(nothing_to_predict_needs_no_window) {
  BOOST_TEST(evaluation_windows(0, 8) == 0);
  BOOST_TEST(evaluation_windows(1, 8) == 0);
  BOOST_TEST(evaluation_windows(2, 8) == 1);
  BOOST_TEST(evaluation_windows(9, 8) == 1);
  BOOST_TEST(evaluation_windows(10, 8) == 2);
}

BOOST_AUTO_TEST_CASE(windows_of_several_shards_stay_inside_one_and_cover_all) {
  // 20 - 4 and 9 - 4 starts: every start is drawn, in proportion, and no window mixes shards.
  const std::vector<TokenShard> shards = {shard(20), shard(9).leading(9), shard(300).leading(6)};
  const Batch batch = sample_batch(shards, 6000, 4, some_key);
  std::vector<std::int64_t> starts(20, 0);
  for (std::int64_t row = 0; row < 6000; ++row) {
    const std::int64_t begin = at(batch.tokens, row * 4);
    for (std::int64_t i = 0; i < 4; ++i) {
      BOOST_TEST(at(batch.tokens, row * 4 + i) == begin + i);
      BOOST_TEST(at(batch.targets, row * 4 + i) == begin + i + 1);
    }
    ++starts[static_cast<std::size_t>(begin)];
  }
  // Starts 0 and 1 lie in all three (16 + 5 + 2 places), 2 to 4 in two, 5 to 15 in one.
  const double place = 6000.0 / 23.0;
  for (std::size_t begin = 0; begin < 16; ++begin) {
    const double expected = place * (begin < 2 ? 3 : begin < 5 ? 2 : 1);
    BOOST_TEST(std::abs(static_cast<double>(starts[begin]) - expected) < 5 * std::sqrt(expected));
  }
  BOOST_TEST(starts[16] == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
