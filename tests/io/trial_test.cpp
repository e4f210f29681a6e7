// Reading in a process of its own.
#include "comigs/io/trial.hpp"

#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "comigs/base/error.hpp"

namespace comigs::io {

namespace {

std::string refusal(const std::function<void()>& read) {
  try {
    try_apart("some/file.h5", read, std::chrono::milliseconds(300));
  } catch (const DataError& error) {
    return error.what();
  }
  return "none";
}

}  // namespace

BOOST_AUTO_TEST_SUITE(trials)

BOOST_AUTO_TEST_CASE(what_ends_is_without_consequence) {
  const pid_t own = getpid();
  int changed = 0;
  BOOST_TEST(refusal([&] { changed = getpid() == own ? 1 : 2; }) == "none");
  BOOST_TEST(changed == 0);
  BOOST_TEST(refusal([] { throw std::runtime_error("told where it is read again"); }) == "none");
}

BOOST_AUTO_TEST_CASE(a_crash_is_told_of) {
  BOOST_TEST(refusal([] { (void)raise(SIGSEGV); }) ==
             "some/file.h5: it is damaged: reading it ends in a crash (Segmentation fault)");
  BOOST_TEST(refusal([] { std::abort(); }) ==
             "some/file.h5: it is damaged: reading it ends in a crash (Aborted)");
}

BOOST_AUTO_TEST_CASE(so_is_a_loop) {
  BOOST_TEST(refusal([] { (void)pause(); }) ==
             "some/file.h5: reading it takes longer than 1 s: it is damaged, or its disk is too slow");
}

BOOST_AUTO_TEST_CASE(an_end_from_outside_says_nothing_of_the_file) {
  for (const int signal : {SIGTERM, SIGKILL, SIGINT, SIGUSR1})
    BOOST_TEST(refusal([=] { (void)raise(signal); }) == "none");
}

// As a sanitizer ends a process.
BOOST_AUTO_TEST_CASE(so_is_a_code) {
  BOOST_TEST(refusal([] { _exit(3); }) == "some/file.h5: it is damaged: reading it ends with code 3");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::io
