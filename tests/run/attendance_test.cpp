// Who is present in which round.
#include "comigs/run/attendance.hpp"

#include <boost/test/unit_test.hpp>

#include <stdexcept>

namespace comigs::run {

namespace {

using Users = std::vector<std::size_t>;

}  // namespace

BOOST_AUTO_TEST_SUITE(attendances)

BOOST_AUTO_TEST_CASE(at_first_all_are_present) {
  const Attendance attendance(3);
  for (const std::int64_t round : {0, 1, 1000}) {
    BOOST_TEST(attendance.present(round) == (Users{0, 1, 2}), boost::test_tools::per_element());
    for (const std::size_t user : {0u, 1u, 2u}) BOOST_TEST(attendance.is_present(user, round));
  }
}

BOOST_AUTO_TEST_CASE(who_drops_out_is_gone_from_that_round_on) {
  Attendance attendance(4);
  attendance.drop({false, true, false, false}, 3);
  attendance.drop({true, true, false, false}, 5);
  BOOST_TEST(attendance.present(2) == (Users{0, 1, 2, 3}), boost::test_tools::per_element());
  BOOST_TEST(attendance.present(3) == (Users{0, 2, 3}), boost::test_tools::per_element());
  BOOST_TEST(attendance.present(4) == (Users{0, 2, 3}), boost::test_tools::per_element());
  BOOST_TEST(attendance.present(5) == (Users{2, 3}), boost::test_tools::per_element());
  BOOST_TEST(attendance.is_present(1, 2));
  BOOST_TEST(!attendance.is_present(1, 3));
  BOOST_TEST(!attendance.is_present(1, 6));
}

BOOST_AUTO_TEST_CASE(somebody_is_left) {
  Attendance attendance(2);
  attendance.drop({true, false}, 1);
  BOOST_CHECK_THROW(attendance.drop({false, true}, 2), std::invalid_argument);
  BOOST_TEST(attendance.present(2) == (Users{1}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(users_that_there_are_not_are_refused) {
  Attendance attendance(2);
  BOOST_CHECK_THROW(attendance.drop({true}, 1), std::out_of_range);
  BOOST_CHECK_THROW((void)attendance.is_present(2, 0), std::out_of_range);
  BOOST_TEST(attendance.present(1).size() == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
