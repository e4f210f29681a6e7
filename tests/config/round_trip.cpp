// Every option, by either way in, comes out of `echo` and goes back in.
#include "support.hpp"

#include "comigs/config/describe.hpp"

#include <fmt/format.h>

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

/// What the option is for one user of the configuration.
std::string value_of(const Option<UserJob>& option, const Config& config, std::size_t user = 0) {
  return option.print({.common = config, .user = config.users.at(user)});
}

bool is_required(const Option<UserJob>& option) {
  return option.info.extra.required && option.print(UserJob{}).empty();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(round_trip)

BOOST_AUTO_TEST_CASE(every_option_from_the_command_line) {
  for (const Option<UserJob>& option : job_table().options) {
    BOOST_TEST_CONTEXT(option.info.name) {
      const std::string value = other_value(option);
      // Required options stand in the words already: these come through the file below.
      if (is_required(option)) continue;
      const Config config = from_words({"--" + option.info.flag(), value});
      BOOST_TEST(value_of(option, config, 3) == value);
      const Config again = resolve(parse_text(echo(config), "echo"), 4);
      BOOST_TEST(value_of(option, again, 3) == value);
      BOOST_TEST(echo(again) == echo(config));
      BOOST_TEST(differences(again, config).empty());
    }
  }
}

BOOST_AUTO_TEST_CASE(every_option_from_a_job_file) {
  std::string ini;
  for (const Option<UserJob>& option : job_table().options) {
    ini += fmt::format("[{}]\n{} = {}\n", option.info.section, option.info.name, other_value(option));
  }
  const Config config = resolve(parse_text(ini, "job.ini"), 2);
  for (const Option<UserJob>& option : job_table().options) {
    BOOST_TEST(value_of(option, config, 1) == other_value(option), option.info.name);
  }
  BOOST_TEST(echo(resolve(parse_text(echo(config), "echo"), 2)) == echo(config));
}

BOOST_AUTO_TEST_CASE(every_user_option_for_one_user) {
  for (const Option<UserJob>& option : job_table().options) {
    if (option.info.section != "user") continue;
    BOOST_TEST_CONTEXT(option.info.name) {
      const std::string value = other_value(option), usual = option.print(UserJob{});
      const Config config = from_words({"--user.2." + option.info.flag(), value});
      BOOST_TEST(value_of(option, config, 1) == usual);
      BOOST_TEST(value_of(option, config, 2) == value);
      const std::string text = echo(config);
      BOOST_TEST(contains(text, fmt::format("[user.2]\n{} = {}\n", option.info.name, value)));
      BOOST_TEST(echo(resolve(parse_text(text, "echo"), 4)) == text);
    }
  }
}

BOOST_AUTO_TEST_CASE(what_users_have_alike_is_printed_once) {
  const std::string text = echo(from_words({"--experts", "4,2,2,2", "--lora-rank", "5,5,5,5"}));
  BOOST_TEST(count(text, "lora_rank = 5\n") == 1U);
  BOOST_TEST(count(text, "experts = ") == 4U);
  BOOST_TEST(contains(text, "[user.3]\nexperts = 2\n"));
  BOOST_TEST(!contains(echo(from_words({})), "[user.0]"));
}

BOOST_AUTO_TEST_CASE(extreme_numbers_survive) {
  const Config config =
      from_words({"--seed", "9223372036854775807", "--epsilon", "5e-324", "--expert-learning-rate",
                  "0.30000000000000004", "--train-evaluation-tokens", "9223372036854775807"});
  const Config again = resolve(parse_text(echo(config), "echo"), 4);
  BOOST_TEST(again.run.seed == config.run.seed);
  BOOST_TEST(again.optimiser.epsilon == 5e-324);
  BOOST_TEST(again.users[0].expert_learning_rate == 0.1 + 0.2);
  BOOST_TEST((again.run.train_evaluation_tokens == config.run.train_evaluation_tokens));
}

BOOST_AUTO_TEST_CASE(flags_and_names_of_the_table_are_unique) {
  std::vector<std::string> flags;
  for (const Option<UserJob>& option : job_table().options) flags.push_back(option.info.flag());
  std::sort(flags.begin(), flags.end());
  BOOST_TEST((std::adjacent_find(flags.begin(), flags.end()) == flags.end()));
}

BOOST_AUTO_TEST_SUITE_END()
