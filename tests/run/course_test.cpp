// A run that is interrupted and goes on ends as one that was never stopped, and checkpoints that are not to
// be used are not.
#include "comigs/run/course.hpp"

#include <boost/test/unit_test.hpp>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/run/output_folder.hpp"
#include "run/served.hpp"

namespace comigs::run {

using results::Stage;
using results::UserRound;

namespace {

namespace fs = std::filesystem;

struct Seen : Watcher {
  std::function<void()> on_step = [] {};
  std::optional<std::int64_t> from;
  std::vector<std::int64_t> rounds;
  std::int64_t steps = 0, steps_promised = 0;
  std::vector<UserRound> start, end;
  bool is_over = false;

  void goes_on(std::int64_t round) override { from = round; }
  void begins(std::int64_t count) override { steps_promised = count; }
  void stepped(std::int64_t, train::Phase) override {
    ++steps;
    on_step();
  }
  void finished_round(const std::vector<UserRound>& rows, std::int64_t) override {
    rounds.push_back(rows.front().round);
  }
  void finished(const std::vector<UserRound>& first, const std::vector<UserRound>& last) override {
    start = first;
    end = last;
  }
  void ends() override { is_over = true; }
};

// What one start of the program has, up to its end.
struct Process {
  comm::Interruption interruption;
  test::Served served;
  std::optional<OutputFolder> output;
  std::optional<Recorder> recorder;
  std::optional<Checkpointer> checkpointer;
  Seen seen;

  // Collective.
  Process(const test::Material& with, const fs::path& folder, const results::RunDescription& run)
      : interruption(with.world), served(with, interruption) {
    const config::Resume resume = with.config.run.resume;
    if (with.world.is_first()) output.emplace(folder.string());
    const io::FolderLock* const held = output ? &output->lock() : nullptr;
    checkpointer.emplace(
        Checkpointer::Setup{with.world, with.roster, served.seat, served.attendance, served.aggregation},
        folder / "checkpoints", results::identity(run), results::round_shape(run), held);
    checkpointer->all_refuse_others(resume);
    recorder.emplace(with.world, with.roster, folder / "results.h5", run, with.base->architecture(),
                     with.users, resume, held);
  }

  void all_run(const test::Material& with) {
    Course({.world = with.world,
            .roster = with.roster,
            .options = with.config.run,
            .seat = served.seat,
            .loop = served.loop,
            .recorder = *recorder,
            .checkpointer = *checkpointer,
            .interruption = interruption,
            .watcher = seen})
        .all_run();
  }
};

struct Runs : test::Material {
  fs::path place = world.all_broadcast(folder.string());
  const test::Quiet quiet;

  Runs() {
    config.run.resume = config::Resume::automatic;
    config.run.checkpoint_every = 1;
  }

  // Collective.
  [[nodiscard]] std::unique_ptr<Process> all_start(const std::string& name) const {
    return std::make_unique<Process>(*this, place / name, description());
  }
  [[nodiscard]] fs::path checkpoints(const std::string& name) const { return place / name / "checkpoints"; }

  // Collective. Leaves the run by a signal to one rank after so many optimiser steps; false: it was through
  // before.
  bool all_interrupt(Process& process, std::int64_t after, std::size_t signalled) const {
    process.seen.on_step = [&, after, signalled] {
      if (process.seen.steps == after && own == signalled) std::raise(SIGUSR1);
    };
    bool left = false;
    try {
      process.all_run(*this);
    } catch (const PeerError& error) {
      BOOST_TEST((error.exit_code() == ExitCode::interrupted));
      left = true;
    }
    world.all_meet();
    return left;
  }

  // Collective. Changes one byte of this user's file in the set.
  void all_damage(const fs::path& set) const {
    const fs::path file = set / ("user_" + std::to_string(own) + ".safetensors");
    if (own + 1 == roster.users()) {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekg(-1, std::ios::end);
      const char last = static_cast<char>(stream.get());
      stream.seekp(-1, std::ios::end);
      stream.put(static_cast<char>(last ^ 1));
    }
    world.all_meet();
  }

  static void check_same(const Process& one, const Process& other) {
    const UserState a = one.served.seat.give(), b = other.served.seat.give();
    for (std::size_t i = 0; i < a.blocks.size(); ++i)
      BOOST_TEST(test::same_bits(a.blocks[i].second, b.blocks.at(i).second), a.blocks[i].first);
    BOOST_TEST_REQUIRE(one.seen.end.size() == other.seen.end.size());
    for (std::size_t user = 0; user < one.seen.end.size(); ++user) {
      BOOST_TEST(one.seen.end[user].after.test.loss_sum == other.seen.end[user].after.test.loss_sum);
      BOOST_TEST(one.seen.end[user].before.test.loss_sum == other.seen.end[user].before.test.loss_sum);
      BOOST_TEST((one.seen.end[user].routing.score == other.seen.end[user].routing.score));
      BOOST_TEST(one.seen.start[user].after.test.loss_sum == other.seen.start[user].after.test.loss_sum);
    }
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(courses, Runs)

BOOST_AUTO_TEST_CASE(a_run_goes_through_its_rounds_and_leaves_no_checkpoint) {
  const auto process = all_start("run");
  process->all_run(*this);
  const Seen& seen = process->seen;
  BOOST_TEST(!seen.from);
  BOOST_TEST(seen.rounds == (std::vector<std::int64_t>{0, 1, 2, 3}), boost::test_tools::per_element());
  BOOST_TEST(seen.steps == seen.steps_promised);
  BOOST_TEST(seen.is_over);
  BOOST_TEST_REQUIRE(seen.end.size() == roster.users());
  for (const UserRound& row : seen.end) BOOST_TEST(row.round == 3);
  for (const UserRound& row : seen.start) BOOST_TEST(row.round == 0);
  world.all_meet();
  BOOST_TEST(!fs::exists(checkpoints("run")));
}

BOOST_AUTO_TEST_CASE(interrupted_and_resumed_it_ends_as_if_never_stopped) {
  const auto unbroken = all_start("unbroken");
  unbroken->all_run(*this);
  std::unique_ptr<Process> process;
  std::size_t starts = 0;
  for (bool left = true; left; ++starts) {
    process.reset();
    process = all_start("broken");
    left = all_interrupt(*process, 1, starts % roster.users());
    if (starts > 0) BOOST_TEST(process->seen.from.has_value());
  }
  BOOST_TEST(starts > 2u);
  check_same(*unbroken, *process);
  BOOST_TEST(!fs::exists(checkpoints("broken")));
}

BOOST_AUTO_TEST_CASE(a_damaged_checkpoint_is_refused_and_the_one_before_taken) {
  const auto unbroken = all_start("unbroken");
  unbroken->all_run(*this);
  // Round 1 has a set, and where the run is left, in round 2 or, on another user's word, later, there is
  // another.
  const auto steps = unbroken->served.seat.trainer().steps_in_round(1);
  BOOST_TEST(all_interrupt(*all_start("broken"), steps + 1, 0));
  const std::vector<fs::path> sets = results::complete_sets(checkpoints("broken"));
  BOOST_TEST_REQUIRE(sets.size() == 2u);
  const std::int64_t kept = results::read_manifest(sets[1]).round;
  all_damage(sets[0]);
  const auto process = all_start("broken");
  process->all_run(*this);
  BOOST_TEST((process->seen.from == kept));
  check_same(*unbroken, *process);
}

BOOST_AUTO_TEST_CASE(where_none_is_whole_a_run_begins_again) {
  BOOST_TEST(all_interrupt(*all_start("broken"), 1, 0));
  for (const fs::path& set : results::complete_sets(checkpoints("broken"))) all_damage(set);
  const auto process = all_start("broken");
  BOOST_TEST(!process->checkpointer->all_restore(process->recorder->recorded()));
  BOOST_TEST(process->served.seat.progress().record.round == 0);
}

BOOST_AUTO_TEST_CASE(rows_that_are_missing_are_not_made_up_for) {
  const auto process = all_start("run");
  process->served.seat.progress().record.round = 2;
  process->checkpointer->all_write();
  BOOST_TEST(!process->checkpointer->all_restore(0));
  BOOST_TEST(process->checkpointer->all_restore(1));
}

BOOST_AUTO_TEST_CASE(places_that_a_run_cannot_be_at_are_refused) {
  const auto process = all_start("run");
  results::RoundProgress& progress = process->served.seat.progress();
  const auto all_restores = [&] {
    process->checkpointer->all_write();
    return process->checkpointer->all_restore(100);
  };
  progress = {.stage = Stage::training, .steps = 1, .record = {.round = 1}};
  BOOST_TEST(all_restores());
  process->checkpointer->all_remove();
  progress = {.stage = Stage::training, .steps = 3, .record = {.round = 1}};  // of 2
  BOOST_TEST(!all_restores());
  progress = {.stage = Stage::training, .steps = 0, .record = {.round = 4}};  // of 3
  BOOST_TEST(!all_restores());
  // Users beside each other: one has aggregated what the others have not.
  if (roster.users() == 1) return;
  progress = {.stage = own == 0 ? Stage::aggregated : Stage::training, .steps = 0, .record = {.round = 1}};
  BOOST_TEST(!all_restores());
}

BOOST_AUTO_TEST_CASE(who_has_dropped_out_is_gone_after_a_restart) {
  if (roster.users() == 1) return;
  const std::size_t gone = roster.users() - 1;
  {
    const auto process = all_start("run");
    std::vector<bool> dropped(roster.users(), false);
    dropped[gone] = true;
    process->served.attendance.drop(dropped, 1);
    process->served.aggregation.all_restrict(process->served.attendance.present(1));
    process->served.seat.progress() = {.stage = Stage::training, .steps = 1, .record = {.round = 1}};
    process->checkpointer->all_write();
  }
  const auto process = all_start("run");
  BOOST_TEST(process->checkpointer->all_restore(0));
  for (std::size_t user = 0; user < roster.users(); ++user)
    BOOST_TEST(process->served.attendance.is_present(user, 1) == (user != gone));
  const federation::Aggregated done = process->served.aggregation.all_aggregate(1);
  BOOST_TEST(done.weights[gone] == (own == gone ? 1.0 : 0.0));
}

BOOST_AUTO_TEST_CASE(checkpoints_of_others_are_refused) {
  const auto refused = [&](const results::RunDescription& run) {
    try {
      const Process process(*this, place / "run", run);
      return false;
    } catch (const PeerError& error) {
      return error.exit_code() == ExitCode::bad_input;
    }
  };
  {
    const auto process = all_start("run");
    process->served.seat.progress().record.round = 1;
    process->checkpointer->all_write();
    // Only the checkpoint is to speak.
    process->recorder->discard_empty();
  }
  BOOST_TEST(!refused(description()));
  results::RunDescription other = description();
  other.base_digest = "07he5";
  BOOST_TEST(refused(other));
  results::RunDescription begun_otherwise = description();
  begun_otherwise.init_adapter_digest = "ada9";
  BOOST_TEST(refused(begun_otherwise));
  config.run.resume = config::Resume::never;
  BOOST_TEST(refused(description()));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
