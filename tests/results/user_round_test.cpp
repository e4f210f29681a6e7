// A user's round travels as numbers and comes back as it was.
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "comigs/results/user_round.hpp"

using namespace comigs;
using results::RoundShape;

namespace {

constexpr RoundShape shape{.layers = 3, .experts = 4, .users = 2};

results::UserRound full_round() {
  results::UserRound round;
  round.round = 7;
  round.after.train = {123.456, 1000};
  round.after.test = {0.1 + 0.2, (std::int64_t{1} << 53) - 1};
  round.before.validation = {1e-300, 1};
  round.routing.score = {0.25F, 0.75F, 0.1F, 0.9F, std::nextafter(0.5F, 1.0F),
                         0.5F};  // two experts in three layers
  round.routing.load = {1, 1, 1, 1, 1, 1};
  round.routing.entropy = {0.5F, 0.25F, std::numeric_limits<float>::quiet_NaN()};
  round.update_norm = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  round.aggregation_weight = {0.3, 0.7};
  round.seconds = {1, 2, 3, 4, 5, 6, 7};
  round.communication_bytes = 1 << 30;
  round.peak_memory_bytes = std::int64_t{78} << 30;
  return round;
}

}  // namespace

BOOST_AUTO_TEST_CASE(round_comes_back_bit_for_bit) {
  const results::UserRound sent = full_round();
  const std::vector<double> block = results::encode(sent, shape);
  BOOST_TEST(block.size() == results::block_length(shape));
  const results::UserRound got = results::decode(block, shape);
  BOOST_TEST(got.round == 7);
  BOOST_TEST(got.after.train.loss_sum == sent.after.train.loss_sum);
  BOOST_TEST(got.after.test.loss_sum == sent.after.test.loss_sum);
  BOOST_TEST(got.after.test.tokens == sent.after.test.tokens);
  BOOST_TEST(got.after.validation.tokens == 0);
  BOOST_TEST(got.before.validation.loss_sum == 1e-300);
  BOOST_TEST(got.routing.score == sent.routing.score, boost::test_tools::per_element());
  BOOST_TEST(got.routing.load == sent.routing.load, boost::test_tools::per_element());
  BOOST_REQUIRE(got.routing.entropy.size() == 3U);
  BOOST_TEST(std::isnan(got.routing.entropy[2]));
  BOOST_TEST(got.update_norm == sent.update_norm, boost::test_tools::per_element());
  BOOST_TEST(got.aggregation_weight == sent.aggregation_weight, boost::test_tools::per_element());
  BOOST_TEST(got.seconds.experts == 1.0);
  BOOST_TEST(got.seconds.writing == 6.0);
  BOOST_TEST(got.seconds.total == 7.0);
  BOOST_TEST(got.communication_bytes == sent.communication_bytes);
  BOOST_TEST(got.peak_memory_bytes == sent.peak_memory_bytes);
}

BOOST_AUTO_TEST_CASE(empty_round_stays_empty) {
  const results::UserRound got = results::decode(results::encode(results::UserRound{}, shape), shape);
  BOOST_TEST(got.routing.score.empty());
  BOOST_TEST(got.update_norm.empty());
  BOOST_TEST(got.aggregation_weight.empty());
  BOOST_TEST(std::isnan(got.after.test.perplexity()));
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
  results::UserRound round = full_round();
  round.aggregation_weight = {1, 2, 3};
  BOOST_CHECK_THROW((void)results::encode(round, shape), std::invalid_argument);
  std::vector<double> block = results::encode(results::UserRound{}, shape);
  BOOST_CHECK_THROW((void)results::decode(std::span(block).first(block.size() - 1), shape),
                    std::invalid_argument);
  for (const double wrong : {-1.0, 0.5, std::nan(""), 1e300}) {
    std::vector<double> damaged = block;
    damaged[0] = wrong;
    BOOST_CHECK_THROW((void)results::decode(damaged, shape), std::invalid_argument);
    damaged = block;
    damaged[11] = wrong;  // the length of the first list, after the round and five evaluations
    BOOST_CHECK_THROW((void)results::decode(damaged, shape), std::invalid_argument);
  }
}
