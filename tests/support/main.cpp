#define BOOST_TEST_MODULE comigs
#include <boost/test/unit_test.hpp>
