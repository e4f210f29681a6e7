#include "support.hpp"

#include "comigs/config/route.hpp"

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

std::string route_error(const Words& words) {
  return error_of([&] { (void)parse_route(words); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(routing)

BOOST_AUTO_TEST_CASE(every_option_is_read) {
  for (const Option<Route>& option : route_table().options) {
    BOOST_TEST_CONTEXT(option.info.name) {
      const std::string value = other_value(option);
      const Route route = parse_route({"--" + option.info.flag(), value, "runs/first"});
      BOOST_TEST(option.print(route) == value);
      BOOST_TEST(route.run == "runs/first");
    }
  }
}

BOOST_AUTO_TEST_CASE(the_run_is_not_read_as_a_job_file) {
  const JobFile file("[route]\ntokens = 3\n");
  const Route route = parse_route({file.path()});
  BOOST_TEST(route.run == file.path());
  BOOST_TEST(route.tokens == Route().tokens);
}

BOOST_AUTO_TEST_CASE(problems_come_at_once) {
  BOOST_TEST(route_error({"--token", "3", "--threads", "x", "--tokens", "0"}) ==
             "4 problems in the configuration:\n"
             "  - unknown option '--token'; did you mean '--tokens'?\n"
             "  - --threads: found 'x', expected an integer from 0 to 4096\n"
             "  - --tokens: found '0', expected an integer from 1 to 65536\n"
             "  - found no run, expected the folder of a finished one, or its results.h5");
  BOOST_TEST(route_error({"runs/a", "runs/b"}) ==
             "found two runs, 'runs/a' and 'runs/b', expected one at most");
}

BOOST_AUTO_TEST_CASE(texts_of_a_file_have_their_own_lengths) {
  BOOST_TEST(parse_route({"run", "--probes", "a.json"}).probes == "a.json");
  BOOST_TEST(contains(error_of([] {
                        (void)parse_route({"run", "--probes", "a.json", "--tokens", "5"});
                      }),
                      "--tokens: found beside --probes"));
}

BOOST_AUTO_TEST_SUITE_END()
