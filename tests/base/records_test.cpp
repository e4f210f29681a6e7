// Durations as people read them, evaluations, the exit codes of errors.
#include "comigs/base/records.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"

namespace comigs {

BOOST_AUTO_TEST_SUITE(records)

BOOST_AUTO_TEST_CASE(durations) {
  BOOST_TEST(format_duration(0.0) == "0.0 s");
  BOOST_TEST(format_duration(12.34) == "12.3 s");
  BOOST_TEST(format_duration(59.9) == "59.9 s");
  BOOST_TEST(format_duration(60.0) == "1 min 00 s");
  BOOST_TEST(format_duration(185.4) == "3 min 05 s");
  BOOST_TEST(format_duration(3599.4) == "59 min 59 s");
  BOOST_TEST(format_duration(3599.6) == "1 h 00 min");
  BOOST_TEST(format_duration(3720.0) == "1 h 02 min");
  BOOST_TEST(format_duration(90000.0) == "25 h 00 min");
  BOOST_TEST(format_duration(std::numeric_limits<double>::infinity()) == "?");
  BOOST_TEST(format_duration(std::numeric_limits<double>::quiet_NaN()) == "?");
}

BOOST_AUTO_TEST_CASE(perplexity_is_the_exponential_of_the_mean_loss) {
  const Evaluation evaluation{.loss_sum = 6.0 * std::log(50.0), .tokens = 6};
  BOOST_TEST(evaluation.loss() == std::log(50.0), boost::test_tools::tolerance(1e-14));
  BOOST_TEST(evaluation.perplexity() == 50.0, boost::test_tools::tolerance(1e-13));
}

BOOST_AUTO_TEST_CASE(nothing_evaluated_has_no_perplexity) {
  BOOST_TEST(std::isnan(Evaluation{}.loss()));
  BOOST_TEST(std::isnan(Evaluation{}.perplexity()));
}

BOOST_AUTO_TEST_CASE(errors_know_their_exit_code) {
  BOOST_TEST((ConfigError("x").exit_code() == ExitCode::bad_input));
  BOOST_TEST((DataError("x").exit_code() == ExitCode::bad_input));
  BOOST_TEST((NumericError("x").exit_code() == ExitCode::failed));
  BOOST_TEST((IoError("x").exit_code() == ExitCode::failed));
  BOOST_TEST((CommError("x").exit_code() == ExitCode::failed));
  BOOST_TEST((PeerError(ExitCode::interrupted).exit_code() == ExitCode::interrupted));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs
