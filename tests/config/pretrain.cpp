#include "support.hpp"

#include "comigs/config/pretrain.hpp"

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

std::string pretrain_error(const Words& words) {
  return error_of([&] { (void)parse_pretrain(words); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pretraining)

BOOST_AUTO_TEST_CASE(every_option_round_trips) {
  for (const Option<Pretrain>& option : pretrain_table().options) {
    BOOST_TEST_CONTEXT(option.info.name) {
      Pretrain wanted;
      wanted.data = "texts";
      wanted.output = "base";
      wanted.width = 258;  // divided by the 3 heads that are tried
      wanted.heads = 1;
      option.set(wanted, other_value(option));
      Words words;
      for (const Option<Pretrain>& any : pretrain_table().options) {
        words.push_back("--" + any.info.flag());
        words.push_back(any.print(wanted));
      }
      BOOST_TEST(option.print(parse_pretrain(words)) == other_value(option));
      const JobFile file(echo(wanted));
      BOOST_TEST(echo(parse_pretrain({file.path()})) == echo(wanted));
    }
  }
}

BOOST_AUTO_TEST_CASE(problems_come_at_once) {
  BOOST_TEST(pretrain_error({"--heds", "3", "--steps", "x", "--width", "30"}) ==
             "5 problems in the configuration:\n"
             "  - unknown option '--heds'; did you mean '--heads'?\n"
             "  - --steps: found 'x', expected an integer from 0 to 1000000\n"
             "  - [pretrain] data: not given; --data is required\n"
             "  - [pretrain] output: not given; --output is required\n"
             "  - [pretrain] width: found 30, expected a multiple of heads, which is 4");
  BOOST_TEST(contains(pretrain_error({"--rounds", "3"}), "unknown option '--rounds'"));
  BOOST_TEST(contains(pretrain_error({"--user.0.experts", "3"}), "unknown option '--user.0.experts'"));
}

BOOST_AUTO_TEST_CASE(lists_mean_nothing_here) {
  BOOST_TEST(contains(pretrain_error({"--steps", "3,4"}), "--steps: found '3,4', expected an integer"));
}

BOOST_AUTO_TEST_SUITE_END()
