// results.h5 as HDF5's own readers see it; what other tools see is in
// tests/python/commands/test_results_file.py.
#include <hdf5.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <csignal>
#include <fstream>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/results/results_file.hpp"
#include "support/temporary_folder.hpp"

using namespace comigs;
using results::ResultsFile;
using results::RunDescription;

namespace {

RunDescription description(const std::vector<std::int64_t>& experts) {
  RunDescription run;
  run.title = "a test";
  run.layers = 2;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    results::UserDescription user;
    user.name = "user " + std::to_string(i);
    user.experts = experts[i];
    run.users.push_back(user);
  }
  return run;
}

std::vector<results::UserRound> rows_of(const RunDescription& run, std::int64_t round) {
  std::vector<results::UserRound> rows(run.users.size());
  for (std::size_t user = 0; user < rows.size(); ++user) {
    rows[user].round = round;
    rows[user].after.test = {2.0 * 100, 100};
    const auto experts = static_cast<std::size_t>(run.users[user].experts);
    for (std::size_t i = 0; i < 2 * experts; ++i) {
      rows[user].routing.score.push_back(static_cast<float>(100 * user + i));
    }
  }
  return rows;
}

// As readers do: HDF5 1.10 looks how long a view is when it is asked for its extent.
std::vector<double> read(const std::filesystem::path& path, const char* name, std::size_t length) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT),
              array = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(array);
  BOOST_REQUIRE(H5Sget_simple_extent_npoints(space) == static_cast<hssize_t>(length));
  std::vector<double> values(length);
  BOOST_REQUIRE(H5Dread(array, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  H5Sclose(space);
  H5Dclose(array);
  H5Fclose(file);
  return values;
}

// Without the note of who holds the folder, which is there as long as a file is open.
std::ptrdiff_t entries(const std::filesystem::path& folder) {
  return std::count_if(
      std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator(),
      [](const auto& entry) { return entry.path().filename() != io::FolderLock::owner_file; });
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

BOOST_FIXTURE_TEST_CASE(users_with_fewer_experts_have_gaps, TemporaryFolder) {
  const RunDescription run = description({2, 1});
  ResultsFile file(folder / "results.h5", run);
  BOOST_TEST(file.shape().experts == 2);
  file.write_round(rows_of(run, 0));
  const std::vector<double> score =
      read(folder / "results.h5", "routing/score", 8);  // [1, 2 users, 2 layers, 2 experts]
  BOOST_TEST(std::vector<double>(score.begin(), score.begin() + 4) == (std::vector<double>{0, 1, 2, 3}),
             boost::test_tools::per_element());
  BOOST_TEST(score[4] == 100.0);
  BOOST_TEST(std::isnan(score[5]));
  BOOST_TEST(score[6] == 101.0);
  BOOST_TEST(std::isnan(score[7]));
  const std::vector<double> test = read(folder / "results.h5", "perplexity/test", 2);
  BOOST_TEST(test[1] == std::exp(2.0));
  BOOST_TEST(std::isnan(read(folder / "results.h5", "perplexity/train", 2)[0]));
  BOOST_TEST(entries(folder) == 1);
}

BOOST_FIXTURE_TEST_CASE(runs_without_experts_have_only_gaps, TemporaryFolder) {
  const RunDescription run = description({0, 0});
  ResultsFile file(folder / "results.h5", run);
  file.write_round(rows_of(run, 0));
  const std::vector<double> score = read(folder / "results.h5", "routing/score", 4);
  BOOST_TEST(std::isnan(score[0]));
  BOOST_TEST(read(folder / "results.h5", "users/experts", 2)[0] == 0.0);
}

BOOST_FIXTURE_TEST_CASE(perplexities_before_the_aggregation_are_kept, TemporaryFolder) {
  const RunDescription run = description({2, 2});
  ResultsFile file(folder / "results.h5", run);
  std::vector<results::UserRound> rows = rows_of(run, 1);
  rows[1].before.test = {30, 10};
  file.write_round(rows);
  file.write_round(rows_of(run, 2));  // without: the values stay
  const std::vector<double> loss = read(folder / "results.h5", "before_aggregation/loss/test", 2);
  BOOST_TEST(std::isnan(loss[0]));
  BOOST_TEST(loss[1] == 3.0);
}

BOOST_FIXTURE_TEST_CASE(one_run_at_a_time_in_a_folder, TemporaryFolder) {
  const auto refused = [&] { ResultsFile(folder / "second.h5", description({1})); };
  {
    const ResultsFile first(folder / "first.h5", description({1}));
    BOOST_CHECK_EXCEPTION(refused(), ConfigError,
                          [](const ConfigError& error) { return has(error.what(), "another run"); });
    BOOST_TEST(!ResultsFile::exists(folder / "second.h5"));
  }
  BOOST_CHECK_NO_THROW(refused());
}

BOOST_FIXTURE_TEST_CASE(a_run_that_lost_its_folder_writes_nothing_more, TemporaryFolder) {
  const RunDescription run = description({1});
  const auto path = folder / "results.h5";
  ResultsFile file(path, run);
  file.write_round(rows_of(run, 0));
  const auto before = sha256_of_file(path);
  // As another machine does that took it for dead.
  std::filesystem::remove(folder / io::FolderLock::owner_file);
  BOOST_CHECK_EXCEPTION(file.write_round(rows_of(run, 1)), IoError,
                        [](const IoError& error) { return has(error.what(), "this run stops"); });
  BOOST_TEST(sha256_of_file(path) == before);
}

BOOST_FIXTURE_TEST_CASE(a_file_without_rounds_goes_where_it_was_made_here, TemporaryFolder) {
  const RunDescription run = description({1});
  const auto path = folder / "results.h5";
  { ResultsFile(path, run).discard_empty(); }
  BOOST_TEST(!ResultsFile::exists(path));
  { ResultsFile left(path, run); }
  { ResultsFile(path, run, ResultsFile::Existing::go_on).discard_empty(); }
  BOOST_TEST(ResultsFile::exists(path));
}

BOOST_FIXTURE_TEST_CASE(nothing_is_overwritten, TemporaryFolder) {
  const auto path = folder / "results.h5";
  std::ofstream(path) << "precious";
  BOOST_TEST(ResultsFile::exists(path));
  BOOST_CHECK_EXCEPTION(ResultsFile(path, description({1})), ConfigError, [](const ConfigError& error) {
    return has(error.what(), "results.h5' is there already");
  });
  BOOST_TEST(std::filesystem::file_size(path) == 8U);
  BOOST_TEST(!ResultsFile::exists(folder / "other.h5"));
  BOOST_CHECK_THROW(ResultsFile(folder / "absent" / "results.h5", description({1})), IoError);
}

BOOST_FIXTURE_TEST_CASE(leftovers_of_a_killed_run_do_not_disturb, TemporaryFolder) {
  std::ofstream(folder / ".results.h5.0123456789abcdef.tmp") << "half a file";
  ResultsFile file(folder / "results.h5", description({1}));
  BOOST_TEST(entries(folder) == 1);
}

BOOST_FIXTURE_TEST_CASE(rounds_that_contradict_the_run_are_refused, TemporaryFolder) {
  const RunDescription run = description({2, 1});
  BOOST_CHECK_THROW(ResultsFile(folder / "none.h5", description({})), std::invalid_argument);
  ResultsFile file(folder / "results.h5", run);
  const auto refused = [&](auto change) {
    std::vector<results::UserRound> rows = rows_of(run, 0);
    change(rows);
    BOOST_CHECK_THROW(file.write_round(rows), std::invalid_argument);
  };
  refused([](auto& rows) { rows.pop_back(); });
  refused([](auto& rows) { rows[1].round = 1; });
  refused([](auto& rows) { rows[1].routing.score.resize(4); });
  refused([](auto& rows) { rows[0].routing.entropy.resize(1); });
  refused([](auto& rows) { rows[0].update_norm.resize(4); });
  refused([](auto& rows) { rows[0].aggregation_weight.resize(3); });
  const float value = 1.0F;
  const auto refused_factor = [&](const ParameterView& factor) {
    BOOST_CHECK_THROW(file.write_weights(0, {{}, {factor}}), std::invalid_argument);
  };
  refused_factor({0, 1, "up_A", 1, 1, &value, "", ""});  // user 1 has one expert
  refused_factor({2, 0, "up_A", 1, 1, &value, "", ""});
  refused_factor({0, 0, "up_A", 0, 1, &value, "", ""});
  refused_factor({0, 0, "up_A", 1, 1, nullptr, "", ""});
  BOOST_CHECK_THROW(file.write_weights(0, {{}}), std::invalid_argument);
  BOOST_TEST(read(folder / "results.h5", "round", 0).empty());
  file.write_round(rows_of(run, 0));
  BOOST_CHECK_THROW(file.write_round(rows_of(run, 0)), std::invalid_argument);
  BOOST_TEST(read(folder / "results.h5", "round", 1)[0] == 0.0);
}

BOOST_FIXTURE_TEST_CASE(full_disk_keeps_the_rounds_before, TemporaryFolder) {
  const RunDescription run = description({2, 2});
  ResultsFile file(folder / "results.h5", run);
  file.write_round(rows_of(run, 0));
  const auto size = std::filesystem::file_size(folder / "results.h5");
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{size + 5000, before.rlim_max};
  const std::vector<float> big(100'000, 1.0F);
  const std::vector<std::vector<ParameterView>> factors{{{0, 0, "up_A", 100, 1000, big.data(), "", ""}}, {}};
  std::string message;
  ::setrlimit(RLIMIT_FSIZE, &small);
  try {
    file.write_weights(1, factors);
  } catch (const IoError& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  BOOST_TEST(has(message, "results.h5"), message);
  BOOST_TEST(has(message, "File too large"), message);
  BOOST_TEST(read(folder / "results.h5", "round", 1)[0] == 0.0);
  BOOST_TEST(entries(folder) == 1U);
  file.write_weights(1, factors);  // with room again, the round can be written
  file.write_round(rows_of(run, 1));
  BOOST_TEST(read(folder / "results.h5", "round", 2)[1] == 1.0);
}

BOOST_FIXTURE_TEST_CASE(history_says_from_which_round_on_something_else_computes, TemporaryFolder) {
  const std::filesystem::path path = folder / "results.h5";
  RunDescription run = description({2, 2});
  run.computed_by = {"comigs 1 (a)", "all users on cpu, 1 thread"};
  run.configuration = "[data]\nfolder = old\n";
  const auto resumed_by = [&](bool moved) {
    ResultsFile file(path, run, ResultsFile::Existing::go_on);
    file.note_resumption(moved);
    file.write_round(rows_of(run, file.rounds() + 1));
    return results::read_run_record(path);
  };
  ResultsFile(path, run).write_round(rows_of(run, 0));
  const std::vector<std::string> first = {"from round 0: comigs 1 (a); all users on cpu, 1 thread"};
  BOOST_TEST(resumed_by(false).history == first, boost::test_tools::per_element());
  run.computed_by.front() = "comigs 1 (b)";
  run.configuration = "[data]\nfolder = new\n";
  const results::RunRecord second = resumed_by(false);
  BOOST_TEST_REQUIRE(second.history.size() == 2U);
  BOOST_TEST(second.history[0] == first[0]);
  BOOST_TEST(second.history[1] == "from round 2: comigs 1 (b); all users on cpu, 1 thread");
  BOOST_TEST(results::computed_by(second.history[1]) == run.computed_by, boost::test_tools::per_element());
  BOOST_TEST(second.identity.configuration == "[data]\nfolder = old\n");
  const results::RunRecord third = resumed_by(true);
  BOOST_TEST(third.history.size() == 2U);
  BOOST_TEST(third.identity.configuration == run.configuration);
  BOOST_TEST(third.rounds == 3);
}
