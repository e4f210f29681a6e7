// Ranks agree on whether a phase went well: all go on or all leave, with the same code.
#include "comigs/comm/agreement.hpp"

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <boost/test/unit_test.hpp>

#include <memory>
#include <new>
#include <sstream>
#include <vector>

namespace comigs::comm {

namespace {

// Catches the log of a test, and keeps expected errors off the screen.
struct CaughtLog {
  CaughtLog() {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("caught", std::make_shared<spdlog::sinks::ostream_sink_st>(text)));
    spdlog::set_pattern("%v");
  }
  ~CaughtLog() { spdlog::set_default_logger(before); }

  std::shared_ptr<spdlog::logger> before = spdlog::default_logger();
  std::ostringstream text;
  Communicator world = Communicator::world();
  int last = world.size() - 1;
};

// Whether every rank leaves with this code; what follows on the communicator must still fit together.
template <class Work>
void check_all_leave(const Communicator& world, ExitCode code, const Work& work) {
  BOOST_CHECK_EXCEPTION(all_agree(world, work), PeerError,
                        [&](const PeerError& error) { return error.exit_code() == code; });
  BOOST_TEST(world.all_sum(std::int64_t{1}) == world.size());
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(agreement, CaughtLog)

BOOST_AUTO_TEST_CASE(results_pass_through) {
  BOOST_TEST(all_agree(world, [&] { return 2 * world.rank() + 1; }) == 2 * world.rank() + 1);
  const std::unique_ptr<int> moved = all_agree(world, [&] { return std::make_unique<int>(world.rank()); });
  BOOST_TEST(*moved == world.rank());
  bool ran = false;
  all_agree(world, [&] { ran = true; });
  BOOST_TEST(ran);
  BOOST_TEST(text.str().empty());
}

BOOST_AUTO_TEST_CASE(one_rank_fails_and_all_leave) {
  for (int culprit = 0; culprit < world.size(); ++culprit) {
    check_all_leave(world, ExitCode::bad_input, [&] {
      if (world.rank() == culprit) throw DataError("tokens.bin is damaged");
    });
    check_all_leave(world, ExitCode::failed, [&]() -> int {
      if (world.rank() == culprit) throw NumericError("not finite");
      return 1;
    });
  }
}

BOOST_AUTO_TEST_CASE(bad_input_outranks_the_failures_it_causes) {
  const ExitCode expected = world.size() > 1 ? ExitCode::bad_input : ExitCode::failed;
  check_all_leave(world, expected, [&] {
    if (world.rank() == 0) throw IoError("disk full");
    if (world.rank() == last) throw ConfigError("rounds = -1");
  });
}

BOOST_AUTO_TEST_CASE(a_request_to_stop_is_outranked_by_any_failure_and_says_nothing) {
  check_all_leave(world, ExitCode::interrupted, [&] {
    if (world.rank() == last) throw Interrupted();
  });
  BOOST_TEST(text.str().empty());
  const ExitCode expected = world.size() > 1 ? ExitCode::failed : ExitCode::interrupted;
  check_all_leave(world, expected, [&] {
    if (world.rank() == 0) throw Interrupted();
    if (world.rank() == last) throw IoError("disk full");
  });
}

BOOST_AUTO_TEST_CASE(ranks_are_called_by_their_names) {
  Communicator named = world.all_duplicate();
  std::vector<std::string> names;
  for (int rank = 0; rank < world.size(); ++rank) names.push_back(fmt::format("user {}", rank));
  named.name_ranks(names);
  if (world.size() == 1) return;
  check_all_leave(named, ExitCode::failed, [&] {
    if (world.rank() == last) throw IoError("disk full");
  });
  if (world.is_first()) BOOST_TEST(text.str() == fmt::format("user {}: disk full\n", last));
}

BOOST_AUTO_TEST_CASE(a_rank_that_failed_does_not_wait_for_one_that_does_not_come) {
  if (world.size() == 1) return;
  // Never freed: rank 0 does not come to it.
  static Communicator* unused = nullptr;
  unused = new Communicator(world.all_duplicate());
  if (world.rank() == last)
    BOOST_CHECK_EXCEPTION(
        all_agree(*unused, [] { throw IoError("disk full"); }), Error, [](const Error& error) {
          return error.exit_code() == ExitCode::failed && std::string(error.what()) == "disk full";
        });
  world.all_meet();
}

BOOST_AUTO_TEST_CASE(every_exception_is_a_failure) {
  check_all_leave(world, ExitCode::failed, [&] {
    if (world.rank() == last) throw std::runtime_error("first line\nsecond line");
  });
  BOOST_TEST(count(text.str(), "second line") == 0u);
  BOOST_TEST(count(text.str(), "first line") == (world.is_first() ? 1u : 0u));
  check_all_leave(world, ExitCode::failed, [&] {
    if (world.rank() == last) throw std::bad_alloc();
  });
  BOOST_TEST(count(text.str(), "out of memory") == (world.is_first() ? 1u : 0u));
}

BOOST_AUTO_TEST_CASE(an_error_that_claims_success_still_stops_everyone) {
  check_all_leave(world, ExitCode::failed, [&]() -> int {
    if (world.rank() == last) throw Error(ExitCode::done, "stopped");
    return 1;
  });
}

BOOST_AUTO_TEST_CASE(a_message_of_all_ranks_is_printed_once) {
  check_all_leave(world, ExitCode::bad_input, [] { throw ConfigError("unknown option '--round'"); });
  BOOST_TEST(text.str() == (world.is_first() ? "unknown option '--round'\n" : ""));
}

BOOST_AUTO_TEST_CASE(messages_of_some_ranks_say_which) {
  check_all_leave(world, ExitCode::bad_input, [&] {
    if (world.rank() != 0) throw DataError("no such file");
    throw DataError("no such folder");
  });
  if (!world.is_first()) {
    BOOST_TEST(text.str().empty());
  } else if (world.size() == 1) {
    BOOST_TEST(text.str() == "no such folder\n");
  } else {
    BOOST_TEST(count(text.str(), "rank 0: no such folder\n") == 1u);
    BOOST_TEST(count(text.str(), world.size() == 2 ? "rank 1: no such file\n"
                                                   : "rank 1, rank 2, rank 3: no such file\n") == 1u);
  }
}

BOOST_AUTO_TEST_CASE(capture_tells_what_was_thrown) {
  BOOST_TEST(!capture([] {}).has_value());
  const std::optional<Failure> failure = capture([] { throw CommError("no device"); });
  BOOST_TEST(failure.has_value());
  if (failure) BOOST_TEST(failure->message == "no device");
  if (failure) BOOST_TEST((failure->exit_code == ExitCode::failed));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
