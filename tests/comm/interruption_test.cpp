// Being asked to stop, and waiting for ranks that do not come.
#include "comigs/comm/interruption.hpp"

#include <boost/test/unit_test.hpp>

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include "comigs/base/error.hpp"

namespace comigs::comm {

namespace {

struct World {
  Communicator world = Communicator::world();
  int last = world.size() - 1;
};

void wait_until(const std::function<bool()>& condition) {
  const auto begun = std::chrono::steady_clock::now();
  while (!condition() && std::chrono::steady_clock::now() - begun < std::chrono::seconds(20))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(interruption, World)

BOOST_AUTO_TEST_CASE(a_signal_to_one_rank_reaches_all) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    Interruption interruption(world);
    BOOST_TEST(!interruption.is_asked());
    BOOST_TEST(interruption.signal().empty());
    world.all_meet();
    if (world.rank() == last) std::raise(signal);
    wait_until([&] { return interruption.is_asked(); });
    BOOST_TEST(interruption.is_asked());
    const std::string name = signal == SIGTERM ? "SIGTERM" : "SIGUSR1";
    BOOST_TEST(interruption.signal() == (world.rank() == last ? name : ""));
    world.all_meet();
  }
}

BOOST_AUTO_TEST_CASE(a_rank_can_stop_the_others) {
  Interruption interruption(world);
  world.all_meet();
  if (world.is_first()) {
    interruption.tell_others();
    BOOST_TEST(!interruption.is_asked());
  } else {
    wait_until([&] { return interruption.is_asked(); });
    BOOST_TEST(interruption.is_asked());
  }
  world.all_meet();
}

BOOST_AUTO_TEST_CASE(a_signal_before_and_one_after_end_nothing) {
  Interruption::hold_signals();
  std::raise(SIGUSR1);
  {
    Interruption interruption(world);
    BOOST_TEST(interruption.is_asked());
    world.all_meet();
  }
  std::raise(SIGTERM);
  BOOST_TEST(world.all_sum(std::int64_t{1}) == world.size());
}

BOOST_AUTO_TEST_CASE(who_does_not_come_is_named) {
  if (world.size() == 1) return;
  // Never freed: not all ranks come to it.
  static Communicator* unused = nullptr;
  unused = new Communicator(world.all_duplicate());
  std::vector<std::string> names;
  for (int rank = 0; rank < world.size(); ++rank) names.push_back("user " + std::to_string(rank));
  unused->name_ranks(names);
  unused->wait_at_most(0.2);
  if (world.is_first())
    BOOST_CHECK_EXCEPTION(unused->all_meet(), CommError, [&](const CommError& error) {
      const std::string message = error.what();
      return message.find("user " + std::to_string(last)) != message.npos &&
             message.find("user 0") == message.npos && (last == 1 || message.find("user 1") == message.npos);
    });
  if (!world.is_first() && world.rank() != last) BOOST_CHECK_THROW(unused->all_meet(), CommError);
  world.all_meet();
}

BOOST_AUTO_TEST_CASE(nobody_goes_on_before_all_have_come) {
  for (int round = 0; round < 20; ++round) {
    if (world.rank() == round % world.size()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
    const std::int64_t came = now();
    world.all_meet();
    const std::int64_t went = now();
    // One clock for all ranks of a machine.
    BOOST_TEST(-world.all_max(-static_cast<double>(went)) >= world.all_max(static_cast<double>(came)));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
