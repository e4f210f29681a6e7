// Text in messages.
#include "comigs/base/printable.hpp"

#include <boost/test/unit_test.hpp>

BOOST_AUTO_TEST_CASE(printable_hides_control_characters_and_cuts) {
  using comigs::printable;
  BOOST_TEST(printable("a\x1b[2Jb\n") == "a?[2Jb?");
  BOOST_TEST(printable("日本語 ü") == "日本語 ü");
  BOOST_TEST(printable(std::string(1000, 'x')).size() == 83U);
  BOOST_TEST(printable(std::string(1000, 'x'), 1000).size() == 1000U);
}
