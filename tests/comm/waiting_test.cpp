// No wait lasts for ever: who does not come is named, in whatever call the others wait; a gap of one's own is
// nobody's silence.
#include <boost/test/unit_test.hpp>

#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <functional>
#include <limits>
#include <string>
#include <thread>

#include "comigs/base/error.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/launch.hpp"
#include "comigs/comm/patience.hpp"
#include "comigs/comm/reduction.hpp"
#include "support/messages.hpp"

namespace comigs::comm {

namespace {

// Seconds of a clock that the test moves.
struct Watch {
  Patience::Clock::time_point begin = Patience::Clock::now();
  Patience patience;
  explicit Watch(double seconds) : patience(seconds, begin) {}

  bool is_out_at(double seconds) {
    return patience.is_out(begin + std::chrono::duration_cast<Patience::Clock::duration>(
                                       std::chrono::duration<double>(seconds)));
  }
};

// The last rank stands still, as one does that is suspended alone, until the first lets it go on.
struct FrozenLast {
  Communicator world = Communicator::world();
  int last = world.size() - 1;
  std::vector<std::int64_t> processes = [this] {
    const std::int64_t own = getpid();
    return world.all_gather(std::span(&own, 1));
  }();
  // Of those that wait for it, and pairs of the first and it: calls that are given up touch nobody else.
  std::optional<Communicator> others = world.all_split(world.rank() < last);
  std::optional<Communicator> pair = world.all_split(world.rank() == 0 || world.rank() == last);

  void freeze() {
    world.all_meet();
    if (world.rank() == last && last > 0) raise(SIGSTOP);
    const auto begun = std::chrono::steady_clock::now();
    while (last > 0 && world.rank() < last && ranks_in_state(stopped).empty() &&
           std::chrono::steady_clock::now() - begun < std::chrono::seconds(20))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void let_it_go_on() {
    if (world.is_first() && last > 0)
      kill(static_cast<pid_t>(processes[static_cast<std::size_t>(last)]), SIGCONT);
    world.all_meet();
  }

  // A group that not all come through is never freed.
  static const Communicator& kept(Communicator&& group) { return *new Communicator(std::move(group)); }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(patience)

BOOST_AUTO_TEST_CASE(it_runs_out_after_its_seconds) {
  Watch watch(3.0);
  for (int tenths = 1; tenths < 30; ++tenths) BOOST_TEST(!watch.is_out_at(0.1 * tenths));
  BOOST_TEST(watch.is_out_at(3.1));
}

BOOST_AUTO_TEST_CASE(after_a_gap_of_ones_own_it_begins_anew) {
  Watch watch(3.0);
  for (int tenths = 1; tenths <= 29; ++tenths) BOOST_TEST(!watch.is_out_at(0.1 * tenths));
  BOOST_TEST(!watch.is_out_at(3600.0));
  for (int tenths = 1; tenths < 30; ++tenths) BOOST_TEST(!watch.is_out_at(3600.0 + 0.1 * tenths));
  BOOST_TEST(watch.is_out_at(3603.1));
}

BOOST_AUTO_TEST_CASE(looks_that_come_late_on_a_busy_machine_count) {
  Watch watch(3.0);
  for (int looks = 1; looks <= 3; ++looks) BOOST_TEST(!watch.is_out_at(0.9 * looks));
  BOOST_TEST(watch.is_out_at(3.6));
}

BOOST_AUTO_TEST_CASE(for_ever_is_for_ever) {
  Watch watch(std::numeric_limits<double>::infinity());
  for (int looks = 1; looks <= 1000; ++looks) BOOST_TEST(!watch.is_out_at(0.9 * looks));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(waiting, FrozenLast)

BOOST_AUTO_TEST_CASE(a_rank_that_froze_is_named_whatever_the_first_waits_in) {
  if (last == 0) return;
  using Call = std::function<void(const Communicator&)>;
  const std::array<std::pair<const char*, Call>, 11> calls = {{
      {"meeting", [](const Communicator& group) { group.all_meet(); }},
      {"maximum", [](const Communicator& group) { (void)group.all_max(1.0); }},
      {"sum", [](const Communicator& group) { (void)group.all_sum(1); }},
      {"numbers", [](const Communicator& group) { (void)group.all_gather(std::span<const double>({1.0})); }},
      {"texts", [](const Communicator& group) { (void)group.all_gather("text"); }},
      {"blocks",
       [](const Communicator& group) { (void)group.all_gather_to_first(std::span<const float>({1.0f})); }},
      {"broadcast",
       [](const Communicator& group) {
         std::array<float, 3> block{};
         group.all_broadcast(block, 1);
       }},
      {"split", [](const Communicator& group) { (void)group.all_split(true); }},
      {"duplicate", [](const Communicator& group) { (void)group.all_duplicate(); }},
      {"ordered sum",
       [](const Communicator& group) {
         std::array<float, 3> block{};
         Reduction(Memory::host, Sums::rank_order).all_sum(group, block);
       }},
      {"any sum",
       [](const Communicator& group) {
         std::array<float, 3> block{};
         Reduction(Memory::host, Sums::any_order).all_sum(group, block);
       }},
  }};
  // One group a call: what was given up stays open in it.
  std::vector<const Communicator*> groups;
  for (std::size_t i = 0; pair && i < calls.size(); ++i) {
    Communicator group = pair->all_duplicate();
    group.wait_at_most(0.2);
    groups.push_back(&kept(std::move(group)));
  }
  freeze();
  for (std::size_t i = 0; world.is_first() && i < calls.size(); ++i) {
    const std::string message = test::message_of<CommError>([&] { calls[i].second(*groups[i]); });
    BOOST_TEST(message.find(fmt::format("rank {} had not come", last)) != message.npos,
               calls[i].first << ": " << message);
  }
  let_it_go_on();
}

BOOST_AUTO_TEST_CASE(those_that_wait_themselves_are_not_named) {
  if (last < 2) return;
  Communicator group = world.all_duplicate();
  group.wait_at_most(0.2);
  const Communicator& all = kept(std::move(group));
  freeze();
  if (others) {
    const std::string message = test::message_of<CommError>([&] { all.all_meet(); });
    BOOST_TEST(message.find(fmt::format("after 0.2 s rank {} had not come", last)) == 0u, message);
    others->all_meet();
  }
  let_it_go_on();
}

BOOST_AUTO_TEST_CASE(one_that_is_stopped_alone_is_named_however_long_the_patience) {
  if (last == 0) return;
  std::optional<Communicator> group;
  if (pair) group = pair->all_duplicate();
  freeze();
  if (world.is_first()) {
    const Communicator& both = kept(std::move(*group));
    const std::string message = test::message_of<CommError>([&] { both.all_meet(); });
    BOOST_TEST(message.find(fmt::format("rank {} had not come to where all ranks meet: stopped", last)) == 0u,
               message);
  }
  let_it_go_on();
  if (pair && !world.is_first()) kept(std::move(*group));
}

BOOST_AUTO_TEST_CASE(the_process_table_tells_who_is_stopped) {
  freeze();
  if (world.is_first()) {
    const std::map<int, std::uint64_t> found = ranks_in_state(stopped);
    BOOST_TEST(found.size() == (last > 0 ? 1u : 0u));
    BOOST_TEST(found.contains(last) == (last > 0));
  }
  let_it_go_on();
  if (world.is_first()) BOOST_TEST(ranks_in_state(stopped).empty());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
