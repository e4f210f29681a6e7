// What a job says: its settings by name, and which options of a user somebody chose.
#include "support.hpp"

#include "comigs/config/describe.hpp"

#include <utility>

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Pairs said(const Words& words) { return settings(parse(words)); }

}  // namespace

BOOST_AUTO_TEST_SUITE(settings_of_a_job)

BOOST_AUTO_TEST_CASE(names_are_those_of_the_command_line) {
  const JobFile file(
      "[data]\nfolder = texts\n[method]\nname = fedavg\n[user]\nlora-rank = 4, 2\n[user.1]\nexperts = 3\n");
  BOOST_TEST((said({file.path(), "--router-every", "5"}) == Pairs{{"data", "texts"},
                                                                  {"method", "fedavg"},
                                                                  {"lora_rank", "4,2"},
                                                                  {"user.1.experts", "3"},
                                                                  {"router_every", "5"}}));
  BOOST_TEST(said({}).empty());
}

BOOST_AUTO_TEST_CASE(of_what_is_said_twice_the_later_counts) {
  const JobFile file("[run]\nrounds = 3\n[user]\nexperts = 4\n[user.1]\nexperts = 3\ntop_k = 1\n");
  BOOST_TEST((said({file.path(), "--rounds", "7"}) ==
              Pairs{{"experts", "4"}, {"user.1.experts", "3"}, {"user.1.top_k", "1"}, {"rounds", "7"}}));
  BOOST_TEST((said({file.path(), "--experts", "2"}) ==
              Pairs{{"rounds", "3"}, {"user.1.top_k", "1"}, {"experts", "2"}}));
}

BOOST_AUTO_TEST_CASE(all_problems_are_told) {
  const std::string message = error_of([] { (void)said({"--rounds", "x", "--ruonds", "3"}); });
  BOOST_TEST(contains(message, "--rounds: found 'x'"));
  BOOST_TEST(contains(message, "unknown option '--ruonds'"));
}

BOOST_AUTO_TEST_CASE(the_default_s_value_is_no_silence) {
  const std::string by_default = std::to_string(User().experts);
  BOOST_TEST(from_words({}).users[1].said.empty());
  for (const User& user : from_words({"--experts", by_default, "--seed", "1"}).users)
    BOOST_TEST((user.said == decltype(user.said){"experts"}));
  const Config config = from_text("[user.1]\ntop_k = 2\n", {"--user.2.experts", by_default});
  BOOST_TEST(config.users[0].said.empty());
  BOOST_TEST((config.users[1].said == decltype(User::said){"top_k"}));
  BOOST_TEST((config.users[2].said == decltype(User::said){"experts"}));
}

BOOST_AUTO_TEST_CASE(a_record_says_everything_and_chooses_nothing) {
  const std::string record = echo(from_words({"--experts", "3"}));
  BOOST_TEST(resolve(parse_recorded(record, "results.h5"), 4).users[0].said.empty());
}

BOOST_AUTO_TEST_CASE(values_are_those_of_the_echo) {
  const Config config = from_words({"--experts", "4,3,2,1", "--reproducible", "false"});
  for (const OptionValue& value : values(config, 1)) {
    if (value.name == "experts") {
      BOOST_TEST(value.text == "3");
      BOOST_TEST(value.is_of_user);
      BOOST_TEST(value.is_number);
    }
    BOOST_TEST(value.is_flag == (value.text == "true" || value.text == "false"), value.name);
  }
  BOOST_TEST(values(config, 0).size() == job_table().options.size());
}

BOOST_AUTO_TEST_SUITE_END()
