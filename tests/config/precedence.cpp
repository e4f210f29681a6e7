#include "support.hpp"

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

std::vector<std::int64_t> experts(const Config& config) {
  std::vector<std::int64_t> all;
  for (const User& user : config.users) all.push_back(user.experts);
  return all;
}

using Experts = std::vector<std::int64_t>;

}  // namespace

BOOST_AUTO_TEST_SUITE(precedence)

BOOST_AUTO_TEST_CASE(command_line_beats_file_beats_default) {
  const Config config = from_text("[run]\nrounds = 7\nseed = 3\n", {"--seed", "4"});
  BOOST_TEST(config.run.evaluate_every == 1);
  BOOST_TEST(config.run.rounds == 7);
  BOOST_TEST(config.run.seed == 4U);
}

BOOST_AUTO_TEST_CASE(one_user_beats_all_users_in_one_source_in_any_order) {
  BOOST_TEST((experts(from_text("[user.1]\nexperts = 5\n[user]\nexperts = 3\n")) == Experts{3, 5, 3, 3}));
  BOOST_TEST((experts(from_words({"--user.1.experts", "5", "--experts", "3"})) == Experts{3, 5, 3, 3}));
}

BOOST_AUTO_TEST_CASE(one_user_beats_a_list) {
  BOOST_TEST(
      (experts(from_text("[user]\nexperts = 4,3,2,1\n[user.1]\nexperts = 8\n")) == Experts{4, 8, 2, 1}));
}

BOOST_AUTO_TEST_CASE(the_command_line_beats_a_file_s_one_user) {
  const std::string file = "[user.0]\nexperts = 8\ntop_k = 3\n";
  const Config config = from_text(file, {"--experts", "2"});
  BOOST_TEST((experts(config) == Experts{2, 2, 2, 2}));
  BOOST_TEST(config.users[0].top_k == 3);
  BOOST_TEST((experts(from_text(file, {"--experts", "1,2,3,4"})) == Experts{1, 2, 3, 4}));
  BOOST_TEST((experts(from_text(file, {"--user.3.experts", "1"})) == Experts{8, 2, 2, 1}));
}

BOOST_AUTO_TEST_CASE(lists_give_one_value_a_user_or_one_for_all) {
  BOOST_TEST((experts(from_words({"--experts", "4, 2,2 ,1"})) == Experts{4, 2, 2, 1}));
  BOOST_TEST((experts(from_words({"--experts=3"})) == Experts{3, 3, 3, 3}));
  BOOST_TEST((experts(from_words({"--experts", "4"}, 1)) == Experts{4}));
}

BOOST_AUTO_TEST_CASE(lists_of_another_length_are_refused) {
  BOOST_TEST(words_error({"--experts", "4,2"}) ==
             "--experts: found 2 values, expected one, or one for each of the 4 users");
  BOOST_TEST(text_error("[user]\ntop_k = 1,1,1,1,1\n") ==
             "job.ini:2: [user] top_k: found 5 values, expected one, or one for each of the 4 users");
}

BOOST_AUTO_TEST_CASE(junk_in_a_list_is_named) {
  BOOST_TEST(words_error({"--experts", "4,x,2,2"}) ==
             "--experts: found 'x' in '4,x,2,2', expected auto or an integer from 1 to 64");
  BOOST_TEST(contains(words_error({"--experts", "4,2,2,"}), "found '' in '4,2,2,'"));
  BOOST_TEST(contains(words_error({"--user.0.experts", "4,2"}),
                      "--user.0.experts: found '4,2', expected auto or an integer"));
  BOOST_TEST(contains(words_error({"--rounds", "4,2"}), "--rounds: found '4,2', expected an integer"));
}

BOOST_AUTO_TEST_CASE(a_user_that_is_not_there_is_refused) {
  BOOST_TEST(text_error("[user.7]\nexperts = 2\n") ==
             "job.ini:2: [user.7] experts: found user 7, expected 0 to 3, as there are 4 users");
  BOOST_TEST(contains(words_error({"--user.4.top-k", "1"}), "--user.4.top-k: found user 4"));
}

BOOST_AUTO_TEST_SUITE_END()
