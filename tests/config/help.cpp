#include "support.hpp"

#include "comigs/config/describe.hpp"

#include <algorithm>
#include <sstream>

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

/// UTF-8 characters, as the help text may hold more than ASCII one day.
std::size_t columns(const std::string& line) {
  return static_cast<std::size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

template <class Record>
void check_help(const std::string& text, const Table<Record>& table) {
  for (const Option<Record>& option : table.options) {
    const std::string head = "\n  --" + option.info.flag() + (option.info.value.empty() ? "" : " ");
    BOOST_TEST(count(text, head + std::string(option.info.value) + " ") == 1U, option.info.name);
  }
  for (const Section& section : table.sections) {
    BOOST_TEST(count(text, "\n[" + std::string(section.name) + "]  ") == 1U, section.name);
  }
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) BOOST_TEST(columns(line) <= 100U, line);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(help_text)

BOOST_AUTO_TEST_CASE(mentions_each_option_once_in_100_columns) {
  check_help(help(), job_table());
  check_help(pretrain_help(), pretrain_table());
  check_help(prune_help(), prune_table());
  check_help(route_help(), route_table());
}

BOOST_AUTO_TEST_CASE(shows_defaults_words_and_what_is_required) {
  const std::string text = help();
  BOOST_TEST(contains(text, "communication rounds [20]"));
  BOOST_TEST(contains(text, "auto, cpu or cuda [auto]"));
  BOOST_TEST(contains(text, "folder of results.h5 (required)"));
  BOOST_TEST(contains(route_help(), "where it is not in its recorded place\n"));  // nothing in brackets
  BOOST_TEST(contains(text, "row of the method table [comigs-1g1s]"));
  BOOST_TEST(contains(text, "added to the root of the second moment [1e-08]"));
}

BOOST_AUTO_TEST_SUITE_END()
