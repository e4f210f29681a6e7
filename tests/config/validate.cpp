#include "support.hpp"

#include <fmt/format.h>

#include <limits>

using namespace comigs::config;
using namespace comigs::config::test;

BOOST_AUTO_TEST_SUITE(validation)

BOOST_AUTO_TEST_CASE(a_sound_configuration_has_no_problems) {
  BOOST_TEST(validate(from_words({}), 4).empty());
}

BOOST_AUTO_TEST_CASE(all_problems_come_at_once) {
  const std::string message = error_of([] {
    Layered layered = parse_text("[run]\nruonds = 3\nthreads = 5x\n[user.7]\nexperts = 2\n", "job.ini");
    const Layered above =
        parse({"--local-steps", "0", "--micro-batch-sequences", "65", "--lora-rank", "1,2"});
    layered.settings.insert(layered.settings.end(), above.settings.begin(), above.settings.end());
    layered.problems.insert(layered.problems.end(), above.problems.begin(), above.problems.end());
    (void)resolve(layered, 4);
  });
  BOOST_TEST(message ==
             "9 problems in the configuration:\n"
             "  - job.ini:2: unknown option 'ruonds' in [run]; did you mean 'rounds'?\n"
             "  - job.ini:3: [run] threads: found '5x', expected an integer from 0 to 4096\n"
             "  - --local-steps: found '0', expected an integer from 1 to 1000000\n"
             "  - job.ini:5: [user.7] experts: found user 7, expected 0 to 3, as there are 4 users\n"
             "  - --lora-rank: found 2 values, expected one, or one for each of the 4 users\n"
             "  - [run] output: not given; --output is required\n"
             "  - [data] folder: not given; --data is required\n"
             "  - [model] folder: not given; --model is required\n"
             "  - [user] micro_batch_sequences: found 65, expected at most batch_sequences, which is 64");
}

BOOST_AUTO_TEST_CASE(problems_of_some_users_name_them) {
  BOOST_TEST(words_error({"--batch-sequences", "8,8,2,8", "--micro-batch-sequences", "4"}) ==
             "[user.2] micro_batch_sequences: found 4, expected at most batch_sequences, which is 2");
}

BOOST_AUTO_TEST_CASE(records_made_by_hand_are_checked_too) {
  Config config = from_words({});
  config.run.rounds = -1;
  config.optimiser.beta1 = std::numeric_limits<double>::quiet_NaN();
  config.method.name.clear();
  config.users[2].experts = 65;
  config.run.output = "a#b";
  const std::vector<std::string> problems = validate(config, 4);
  BOOST_TEST(
      problems ==
          (Words{"[run] output: found 'a#b', expected text without '#', control characters or outer blanks",
                 "[run] rounds: found '-1', expected an integer from 0 to 1000000",
                 "[method] name: not given; --method is required",
                 "[optimiser] beta1: found 'nan', expected a number from 0 to below 1",
                 "[user.2] experts: found '65', expected auto or an integer from 1 to 64"}),
      boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_number_of_users_must_fit) {
  BOOST_TEST(validate(from_words({}, 4), 3).at(0) == "found a configuration of 4 users, expected 3");
  BOOST_TEST(validate(Config{}, 0).at(0) == "found 0 users, expected at least 1");
  BOOST_TEST(error_of([] { (void)from_words({}, 0); }) == "found 0 users, expected at least 1");
}

BOOST_AUTO_TEST_CASE(bounds_of_every_option_are_inclusive_as_said) {
  for (const Option<UserJob>& option : job_table().options) {
    const OptionInfo& info = option.info;
    if (info.range.low > -1e300) {
      BOOST_TEST(info.accepts(print(info.range.low), info.range) == !info.range.low_excluded, info.name);
      BOOST_TEST(!info.accepts(print(info.range.low - 1), info.range), info.name);
    }
    if (info.range.high < 1e300) {
      const std::string high = print(static_cast<std::int64_t>(info.range.high));
      BOOST_TEST(info.accepts(high, info.range) == !info.range.high_excluded, info.name);
      BOOST_TEST(!info.accepts(print(static_cast<std::int64_t>(info.range.high) + 1), info.range), info.name);
    }
  }
}

BOOST_AUTO_TEST_CASE(defaults_are_within_bounds) {
  for (const Option<UserJob>& option : job_table().options) {
    BOOST_TEST(option.info.accepts(option.print(UserJob{}), option.info.range), option.info.name);
  }
}

BOOST_AUTO_TEST_SUITE_END()
