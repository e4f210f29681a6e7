// results.h5 as HDF5's own readers see it; what other tools see is in tests/python/test_results_file.py.
#include <hdf5.h>
#include <hdf5_hl.h>
#include <sys/resource.h>

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <csignal>
#include <fstream>

#include "comigs/base/error.hpp"
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
    UserDescription user;
    user.name = "user " + std::to_string(i);
    user.experts = experts[i];
    run.users.push_back(user);
  }
  return run;
}

std::vector<UserRound> rows_of(const RunDescription& run, std::int64_t round) {
  std::vector<UserRound> rows(run.users.size());
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

std::vector<double> read(const std::filesystem::path& path, const char* name, std::size_t length) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  std::vector<hsize_t> extent(8);
  int rank = 0;
  BOOST_REQUIRE(H5LTget_dataset_ndims(file, name, &rank) >= 0);
  BOOST_REQUIRE(H5LTget_dataset_info(file, name, extent.data(), nullptr, nullptr) >= 0);
  hsize_t size = 1;
  for (int i = 0; i < rank; ++i) {
    size *= extent[static_cast<std::size_t>(i)];
  }
  BOOST_REQUIRE(size == length);
  std::vector<double> values(length);
  BOOST_REQUIRE(H5LTread_dataset_double(file, name, values.data()) >= 0);
  H5Fclose(file);
  return values;
}

std::size_t entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
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
  BOOST_TEST(entries(folder) == 1U);
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
  std::vector<UserRound> rows = rows_of(run, 1);
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
  BOOST_TEST(entries(folder) == 1U);
}

BOOST_FIXTURE_TEST_CASE(rounds_that_contradict_the_run_are_refused, TemporaryFolder) {
  const RunDescription run = description({2, 1});
  BOOST_CHECK_THROW(ResultsFile(folder / "none.h5", description({})), std::invalid_argument);
  ResultsFile file(folder / "results.h5", run);
  const auto refused = [&](auto change) {
    std::vector<UserRound> rows = rows_of(run, 0);
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
