// Text in messages.
#include "comigs/base/printable.hpp"

#include <boost/test/unit_test.hpp>

BOOST_AUTO_TEST_CASE(printable_hides_control_characters_and_cuts) {
  using comigs::printable;
  BOOST_TEST(printable("a\x1b[2Jb\n") == "a?[2Jb?");
  BOOST_TEST(printable("日本語 ü") == "日本語 ü");
  BOOST_TEST(printable("a\xC2\x9B"
                       "2J") == "a?2J");  // the same command in one character
  BOOST_TEST(printable(std::string(1000, 'x')).size() == 83U);
  BOOST_TEST(printable(std::string(1000, 'x'), 1000).size() == 1000U);
}

BOOST_AUTO_TEST_CASE(printable_is_utf_8) {
  using comigs::printable;
  BOOST_TEST(printable("lora\xB3rank") == "lora?rank");
  BOOST_TEST(printable("\xC0\xAF \xE0\x80\xAF") == "?? ???");            // longer than need be
  BOOST_TEST(printable("\xED\xA0\x80 \xF4\x90\x80\x80") == "??? ????");  // no characters
  BOOST_TEST(printable("a\xE6\x97") == "a??");                           // cut short
  BOOST_TEST(printable("日本語", 7) == "日本...");
  BOOST_TEST(printable("𝄞", 4) == "𝄞");
}
