// What users say about a round is in results.h5 when the round is over, and a run that goes on adds to it.
#include "comigs/run/recorder.hpp"

#include <hdf5.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <filesystem>

#include "comigs/adapter/layout.hpp"
#include "comigs/base/error.hpp"
#include "comigs/results/stored_run.hpp"
#include "run/served.hpp"

namespace comigs::run {

using results::UserRound;

namespace {

namespace fs = std::filesystem;

std::vector<double> read(const fs::path& path, const char* name) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT),
              array = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(array);
  std::vector<double> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
  BOOST_REQUIRE(H5Dread(array, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  H5Sclose(space);
  H5Dclose(array);
  H5Fclose(file);
  return values;
}

struct Recording : test::Material {
  fs::path path = fs::path(world.all_broadcast(folder.string())) / "results.h5";

  // Collective.
  [[nodiscard]] Recorder all_open(config::Resume resume, const results::RunDescription& run) const {
    return {world, roster, path, run, architecture, users, resume, nullptr};
  }
  [[nodiscard]] Recorder all_open(config::Resume resume = config::Resume::never) const {
    return all_open(resume, description());
  }

  static double loss(std::size_t user, std::int64_t round) {
    return static_cast<double>(user) + 0.25 * static_cast<double>(round);
  }
  [[nodiscard]] UserRound record_of(std::int64_t round) const {
    UserRound record{.round = round};
    record.after.test = {.loss_sum = 8 * loss(own, round), .tokens = 8};
    record.seconds.total = 1.0;
    return record;
  }
  // Collective. Writes the round's row.
  void all_add(Recorder& recorder, std::int64_t round) const {
    UserRound record = record_of(round);
    (void)recorder.all_write(record, nullptr);
  }

  // Rank 0. Checks that the file has these rounds, and every user's loss in them.
  void check_rows(std::int64_t rounds) const {
    if (!world.is_first()) return;
    BOOST_TEST(results::read_run_record(path).rounds == rounds - 1);
    const std::vector<double> found = read(path, "loss/test");
    BOOST_TEST_REQUIRE(found.size() == static_cast<std::size_t>(rounds) * roster.users());
    for (std::int64_t round = 0; round < rounds; ++round)
      for (std::size_t user = 0; user < roster.users(); ++user)
        BOOST_TEST(found[static_cast<std::size_t>(round) * roster.users() + user] == loss(user, round));
  }

  model::Architecture architecture = test::tiny_architecture();
};

bool is_bad_input(const PeerError& error) { return error.exit_code() == ExitCode::bad_input; }

}  // namespace

BOOST_FIXTURE_TEST_SUITE(recorders, Recording)

BOOST_AUTO_TEST_CASE(rows_are_there_when_their_round_is_over) {
  Recorder recorder = all_open();
  BOOST_TEST(recorder.recorded() == -1);
  for (const std::int64_t round : {0, 1, 2}) {
    UserRound record = record_of(round);
    const std::vector<UserRound> rows = recorder.all_write(record, nullptr);
    BOOST_TEST_REQUIRE(rows.size() == roster.users());
    for (std::size_t user = 0; user < rows.size(); ++user) {
      BOOST_TEST(rows[user].round == round);
      BOOST_TEST(rows[user].after.test.loss() == loss(user, round));
    }
    check_rows(round + 1);
    // Writing takes time, which is the round's.
    BOOST_TEST(record.seconds.total == 1.0 + record.seconds.writing);
    BOOST_TEST((round == 0 || record.seconds.writing > 0.0));
  }
}

BOOST_AUTO_TEST_CASE(a_run_that_goes_on_adds_to_what_is_there) {
  {
    Recorder recorder = all_open();
    all_add(recorder, 0);
    all_add(recorder, 1);
  }
  Recorder recorder = all_open(config::Resume::automatic);
  BOOST_TEST(recorder.recorded() == 1);
  recorder.all_note_resumption();
  // A round that is done again: what is there stays, what is told is of now.
  UserRound again = record_of(1);
  again.after.test.loss_sum += 800.0;
  const std::vector<UserRound> rows = recorder.all_write(again, nullptr);
  BOOST_TEST(rows[own].after.test.loss() == loss(own, 1) + 100.0);
  BOOST_TEST(again.seconds.writing == 0.0);
  check_rows(2);
  all_add(recorder, 2);
  check_rows(3);
  BOOST_TEST(recorder.recorded() == 1);
}

BOOST_AUTO_TEST_CASE(what_it_goes_on_with_is_noted) {
  const test::Quiet quiet;
  {
    Recorder recorder = all_open();
    all_add(recorder, 0);
  }
  {
    Recorder alike = all_open(config::Resume::automatic);
    alike.all_note_resumption();
    if (world.is_first()) BOOST_TEST(results::read_run_record(path).history.size() == 1u);
  }
  results::RunDescription other = description();
  other.computed_by = {"another program"};
  Recorder recorder = all_open(config::Resume::automatic, other);
  recorder.all_note_resumption();
  if (!world.is_first()) return;
  const std::vector<std::string> history = results::read_run_record(path).history;
  BOOST_TEST_REQUIRE(history.size() == 2u);
  BOOST_TEST(history[1].find("from round 1: another program") == 0u, history[1]);
}

BOOST_AUTO_TEST_CASE(what_is_there_is_not_lost) {
  const test::Quiet quiet;
  {
    Recorder recorder = all_open();
    all_add(recorder, 0);
  }
  BOOST_CHECK_EXCEPTION((void)all_open(), PeerError, is_bad_input);
  results::RunDescription other = description();
  other.data_digest = "07he5";
  BOOST_CHECK_EXCEPTION((void)all_open(config::Resume::automatic, other), PeerError, is_bad_input);
  check_rows(1);
}

BOOST_AUTO_TEST_CASE(trained_numbers_are_those_of_every_user) {
  const Seat seat(seat_setup());
  {
    Recorder recorder = all_open();
    UserRound record = record_of(0);
    (void)recorder.all_write(record, &seat.parameters());
  }
  const at::Tensor& values = seat.parameters().values();
  const std::span<const float> block(values.const_data_ptr<float>(),
                                     static_cast<std::size_t>(values.numel()));
  const std::vector<std::vector<float>> expected = roster.all_gather_to_first(std::span(&block, 1));
  if (!world.is_first()) return;
  const results::StoredRun stored(path);
  for (std::size_t user = 0; user < roster.users(); ++user) {
    std::vector<float> found(expected[user].size());
    stored.read_weights(0, user, adapter::stored_parameters(architecture, users[user], found.data()), found);
    BOOST_TEST((found == expected[user]));
  }
}

BOOST_AUTO_TEST_CASE(a_file_without_a_round_is_left_by_nobody) {
  {
    Recorder recorder = all_open();
    recorder.discard_empty();
  }
  world.all_meet();
  BOOST_TEST(!fs::exists(path));
  Recorder recorder = all_open();
  all_add(recorder, 0);
  recorder.discard_empty();
  check_rows(1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
