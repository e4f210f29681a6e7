#include "support.hpp"

#include "comigs/config/describe.hpp"

#include <set>

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

/// The digest of a configuration of two users in which one option of one user, or of the run, is another.
std::string digest_with(const Option<Job>& option, std::size_t user) {
  Config config = from_words({}, 2);
  Job job{.common = config, .user = config.users[user]};
  option.set(job, other_value(option));
  job.common.users[user] = job.user;
  return digest(job.common);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(digests)

BOOST_AUTO_TEST_CASE(every_option_that_determines_numbers_changes_it) {
  std::set<std::string> seen{digest(from_words({}, 2))};
  std::set<std::string> without;
  for (const Option<Job>& option : job_table().options) {
    for (std::size_t user = 0; user < (option.info.section == "user" ? 2 : 1); ++user) {
      const bool is_new = seen.insert(digest_with(option, user)).second;
      BOOST_TEST(is_new == option.info.extra.determines_numbers, option.info.name);
    }
    if (!option.info.extra.determines_numbers) without.insert(std::string(option.info.name));
  }
  BOOST_TEST((without == std::set<std::string>{"output", "device", "threads", "resume", "checkpoint_every",
                                               "on_user_failure", "patience", "step_budget"}));
}

BOOST_AUTO_TEST_CASE(it_is_64_hexadecimal_digits_and_depends_on_the_users) {
  const std::string two = digest(from_words({}, 2));
  BOOST_TEST(two.size() == 64U);
  BOOST_TEST(two.find_first_not_of("0123456789abcdef") == std::string::npos);
  BOOST_TEST(two == digest(from_words({"--experts", "2,2"}, 2)));
  BOOST_TEST(two != digest(from_words({}, 3)));
}

BOOST_AUTO_TEST_CASE(differences_are_named_where_digests_differ) {
  const Config here = from_words({"--rounds", "3", "--experts", "2,4"}, 2);
  BOOST_TEST(differences(here, here).empty());
  BOOST_TEST(differences(from_words({"--rounds", "3", "--experts", "2,4", "--threads", "3", "--resume",
                                     "auto", "--checkpoint-every", "7", "--patience", "9",
                                     "--on-user-failure", "continue", "--device", "cuda"},
                                    2),
                         here)
                 .empty());
  BOOST_TEST((differences(from_words({"--rounds", "5", "--experts", "2,8", "--seed", "1"}, 2), here) ==
              std::vector<std::string>{"[run] seed: 1 there, 0 here", "[run] rounds: 5 there, 3 here",
                                       "[user.1] experts: 8 there, 4 here"}));
  BOOST_TEST((differences(from_words({}, 3), here) == std::vector<std::string>{"users: 3 there, 2 here"}));
}

BOOST_AUTO_TEST_SUITE_END()
