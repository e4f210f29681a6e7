#include "comigs/config/value.hpp"
#include "comigs/config/nearest.hpp"

#include <boost/test/unit_test.hpp>

#include <limits>

using namespace comigs::config;

BOOST_AUTO_TEST_SUITE(value)

BOOST_AUTO_TEST_CASE(integers_are_read_whole) {
  std::int64_t number = 7;
  for (const char* text :
       {"", " 1", "1 ", "+1", "1.0", "1e3", "0x10", "1_000", "9223372036854775808", "abc", "1a"}) {
    BOOST_TEST(!read(text, number), text);
  }
  BOOST_TEST(number == 7);
  BOOST_TEST(read("-9223372036854775808", number));
  BOOST_TEST(number == std::numeric_limits<std::int64_t>::min());
  std::uint64_t seed = 0;
  BOOST_TEST(read("9223372036854775807", seed));
  BOOST_TEST(seed == 9223372036854775807U);
  BOOST_TEST(!read("9223372036854775808", seed));  // results hold it with a sign
  BOOST_TEST(!read("18446744073709551616", seed));
  BOOST_TEST(!read("-1", seed));
}

BOOST_AUTO_TEST_CASE(numbers_are_finite) {
  double number = 7.0;
  for (const char* text : {"", "nan", "inf", "-inf", "1e999", "1e-999", "1,5", "0.1x", "--1"}) {
    BOOST_TEST(!read(text, number), text);
  }
  BOOST_TEST(number == 7.0);
  BOOST_TEST(read("2e-3", number));
  BOOST_TEST(number == 2e-3);
}

BOOST_AUTO_TEST_CASE(printed_numbers_read_back_exactly) {
  for (const double number : {0.1, 1.0 / 3.0, 1e-8, 2e-3, 16.0, 1e300, 5e-324}) {
    double back = 0.0;
    BOOST_TEST(read(print(number), back));
    BOOST_TEST(back == number);
  }
  BOOST_TEST(print(0.002) == "0.002");
  BOOST_TEST(print(16.0) == "16");
}

BOOST_AUTO_TEST_CASE(booleans_and_words_are_exact) {
  bool flag = false;
  BOOST_TEST(!read("yes", flag));
  BOOST_TEST(!read("True", flag));
  BOOST_TEST(read("true", flag));
  BOOST_TEST(flag);
  auto precision = Precision::float32;
  BOOST_TEST(!read("fp32", precision));
  BOOST_TEST(read("bf16", precision));
  BOOST_TEST((precision == Precision::bf16));
  BOOST_TEST(type_words<DeviceChoice>() == "auto, cpu or cuda");
  BOOST_TEST(type_words<Precision>() == "float32 or bf16");
}

BOOST_AUTO_TEST_CASE(text_that_an_ini_file_cannot_hold_is_refused) {
  std::string text = "before";
  for (const char* bad : {"a#b", " a", "a ", "a\nb", "a\tb", "\x7f"}) BOOST_TEST(!read(bad, text), bad);
  BOOST_TEST(text == "before");
  BOOST_TEST(read("Données/été 2=3; x", text));
  BOOST_TEST(text == "Données/été 2=3; x");
}

BOOST_AUTO_TEST_CASE(ranges_contain_what_their_words_say) {
  BOOST_TEST(range_words(Range{}).empty());
  BOOST_TEST(range_words(at_least(0)) == " of at least 0");
  BOOST_TEST(range_words(above(0)) == " above 0");
  BOOST_TEST(range_words(between(1, 1'000'000)) == " from 1 to 1000000");
  BOOST_TEST(range_words(from_to_below(0, 1)) == " from 0 to below 1");
  BOOST_TEST(!above(0).contains(0.0));
  BOOST_TEST(at_least(0).contains(0.0));
  BOOST_TEST(from_to_below(0, 1).contains(0.0));
  BOOST_TEST(!from_to_below(0, 1).contains(1.0));
  BOOST_TEST(!between(1, 2).contains(std::numeric_limits<double>::quiet_NaN()));
}

BOOST_AUTO_TEST_CASE(distance_counts_edits_and_swaps) {
  BOOST_TEST(edit_distance("", "abc") == 3U);
  BOOST_TEST(edit_distance("rounds", "rounds") == 0U);
  BOOST_TEST(edit_distance("ruonds", "ronds") == 1U);
  BOOST_TEST(edit_distance("ruonds", "rounds") == 1U);
  BOOST_TEST(edit_distance("kitten", "sitting") == 3U);
}

BOOST_AUTO_TEST_CASE(nearest_is_found_or_nothing) {
  BOOST_TEST(nearest("ruonds", {"seed", "rounds", "round"}).value() == 1U);
  BOOST_TEST(!nearest("temperature", {"seed", "rounds"}).has_value());
  BOOST_TEST(!nearest("x", {}).has_value());
  BOOST_TEST(!nearest(std::string(100'000, 'x'), {"seed"}).has_value());
}

BOOST_AUTO_TEST_CASE(lists_of_numbers_are_joined_by_plus) {
  std::vector<std::int64_t> numbers = {7};
  for (const char* wrong : {"", "+", "1+", "+1", "1+1", "1,2", "-1", "64", "1 +2", "a"}) {
    BOOST_TEST(!read(wrong, numbers), wrong);
    BOOST_TEST((numbers == std::vector<std::int64_t>{7}));
  }
  BOOST_TEST(read("2+0", numbers));
  BOOST_TEST(print(numbers) == "0+2");
  BOOST_TEST(range_words({.low = 0, .high = 1, .low_excluded = true}) == " above 0 and at most 1");
}

BOOST_AUTO_TEST_SUITE_END()
