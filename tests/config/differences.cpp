#include "support.hpp"

#include "comigs/config/describe.hpp"

#include <set>

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

/// A configuration of two users in which one option of one user, or of the run, is another.
Config with_another(const Option<UserJob>& option, std::size_t user) {
  Config config = from_words({}, 2);
  UserJob job{.common = config, .user = config.users[user]};
  option.set(job, other_value(option));
  job.common.users[user] = job.user;
  return job.common;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(differing)

BOOST_AUTO_TEST_CASE(every_option_that_determines_numbers_makes_a_difference) {
  std::set<std::string> without;
  for (const Option<UserJob>& option : job_table().options) {
    const std::string name = std::string(option.info.section) + "." + std::string(option.info.name);
    for (std::size_t user = 0; user < (option.info.section == "user" ? 2 : 1); ++user) {
      const std::vector<std::string> found = differences(from_words({}, 2), with_another(option, user));
      BOOST_TEST(found.size() == (option.info.extra.determines_numbers ? 1U : 0U), name);
      if (!found.empty()) BOOST_TEST(contains(found.front(), std::string(option.info.name) + ": "), name);
    }
    if (!option.info.extra.determines_numbers) without.insert(name);
  }
  // What is collective is alike for all ranks, also where it decides no numbers.
  const Config here = from_words({}, 2);
  for (const Option<UserJob>& option : job_table().options) {
    const bool differs = !differences(here, with_another(option, 1), Between::ranks).empty();
    const std::set<std::string> own = {"device", "threads", "folder", "init_adapter"};
    BOOST_TEST(differs == !own.contains(std::string(option.info.name)), option.info.name);
  }
  // What lies in the folders is compared by its digests.
  BOOST_TEST((without == std::set<std::string>{"run.output", "run.activations", "run.device", "run.threads",
                                               "run.resume", "run.checkpoint_every", "run.on_user_failure",
                                               "run.patience", "data.folder", "model.folder",
                                               "model.init_adapter", "user.step_budget"}));
}

BOOST_AUTO_TEST_CASE(differences_are_named) {
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
