// The main of test binaries that run on several ranks: MPI lives around the tests, and a failure on any rank
// fails them all.
#define BOOST_TEST_MODULE comigs
#define BOOST_TEST_NO_MAIN
#include <boost/test/unit_test.hpp>

#include "comigs/comm/session.hpp"

int main(int argc, char** argv) {
  const comigs::comm::Session session(argc, argv);
  return boost::unit_test::unit_test_main(&init_unit_test, argc, argv);
}
