// A run's file after the run: its weights read back, routing of texts added.
#include "comigs/results/stored_run.hpp"

#include <hdf5.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "comigs/base/error.hpp"
#include "comigs/io/hdf5.hpp"
#include "comigs/results/results_file.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

using namespace comigs;
using namespace comigs::results;
using io::hdf5::File;
using io::hdf5::Group;
using test::check_contains;
using test::message_of;

namespace {

// Two users, two layers; expert 0's up_A of layer 1 is stored of both, and a router.
struct Finished : TemporaryFolder {
  const std::vector<float> factor{1, 2, 3, 4, 5, 6}, router{7, 8};
  const std::vector<ParameterView> stored{{1, 0, "up_A", 2, 3, factor.data(), "lora_rank", "width", "expert"},
                                          {0, -1, "weight", 1, 2, router.data(), "", "", "router"}};
  const std::filesystem::path path = folder / "results.h5";

  Finished() {
    RunDescription run;
    run.configuration = "[run]\nseed = 3\n";
    run.data_digest = "da7a";
    run.base_digest = "ba5e";
    run.init_adapter_digest = "ada9";
    run.layers = 2;
    for (const char* name : {"German", "日本語"}) {
      UserDescription user;
      user.name = name;
      user.experts = 2;
      run.users.push_back(user);
    }
    ResultsFile file(path, run);
    for (const std::int64_t round : {0, 1}) {
      std::vector<UserRound> rows(2);
      rows[0].round = rows[1].round = round;
      file.write_weights(round, {stored, stored});
      file.write_round(rows);
    }
  }

  [[nodiscard]] static TokenRouting text(const std::string& name, std::size_t tokens, float score) {
    return {.name = name,
            .owner = "German",
            .ids = std::vector<std::int64_t>(tokens, 5),
            .texts = std::vector<std::string>(tokens, "ü"),
            .score = std::vector<float>(tokens * 8, score)};
  }

  /// The first score of the text, and how many tokens it has.
  [[nodiscard]] std::pair<float, std::size_t> found(const std::string& name) const {
    const File file = File::open_to_read(path);
    const Group group = file.root().open_group("tokens/" + name);
    const std::vector<std::string> texts = group.open_dataset("text").read_texts();
    BOOST_TEST(texts.back() == "ü");
    std::vector<float> score(texts.size() * 8);
    group.open_dataset("score").read(score);
    BOOST_TEST(group.text_attribute("owner") == "German");
    return {score[0], texts.size()};
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(stored_runs, Finished)

BOOST_AUTO_TEST_CASE(record_is_read_from_folder_and_file) {
  for (const std::filesystem::path& place : {folder, path}) {
    const StoredRun run(place);
    BOOST_TEST(run.path() == path);
    BOOST_TEST(run.record().identity.configuration == "[run]\nseed = 3\n");
    BOOST_TEST(run.record().identity.data_digest == "da7a");
    BOOST_TEST(run.record().identity.base_digest == "ba5e");
    BOOST_TEST(run.record().identity.init_adapter_digest == "ada9");
    BOOST_TEST(run.record().identity.users == (std::vector<std::string>{"German", "日本語"}),
               boost::test_tools::per_element());
    BOOST_TEST(run.record().rounds == 1);
    BOOST_TEST(run.record().shape.layers == 2);
    BOOST_TEST(run.record().shape.experts == 2);
    BOOST_TEST(run.record().shape.users == 2);
  }
}

BOOST_AUTO_TEST_CASE(weights_come_one_after_the_other) {
  const StoredRun run(folder);
  std::vector<float> block(8);
  run.read_weights(1, 1, stored, block);
  BOOST_TEST(block == (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}), boost::test_tools::per_element());
  const auto refused = [&](std::int64_t round, auto change) {
    std::vector<ParameterView> wanted = stored;
    change(wanted[0]);
    return message_of<DataError>([&] { run.read_weights(round, 1, wanted, block); });
  };
  check_contains(refused(2, [](ParameterView&) {}),
                 {path.string(), "'expert/weights/2/user_1/layer_1/expert_0/up_A' is missing"});
  check_contains(refused(1, [](ParameterView& view) { view.rows = 3; }), {"shape [2, 3], expected [3, 3]"});
  check_contains(refused(1, [](ParameterView& view) { view.name = "up_B"; }), {"up_B' is missing"});
}

BOOST_AUTO_TEST_CASE(texts_are_added_and_replaced) {
  StoredRun run(folder);
  run.write_tokens({text("one", 3, 0.25F), text("two words", 4, 0.5F)});
  BOOST_TEST((found("one") == std::pair<float, std::size_t>{0.25F, 3}));
  BOOST_TEST((found("two words") == std::pair<float, std::size_t>{0.5F, 4}));
  run.write_tokens({text("one", 3, 0.75F)});
  BOOST_TEST((found("one") == std::pair<float, std::size_t>{0.75F, 3}));
  run.write_tokens({text("one", 5, 1.0F)});
  BOOST_TEST((found("one") == std::pair<float, std::size_t>{1.0F, 5}));
  BOOST_TEST((found("two words") == std::pair<float, std::size_t>{0.5F, 4}));
  std::vector<float> block(8);
  run.read_weights(0, 0, stored, block);
  BOOST_TEST(block[7] == 8.0F);
}

BOOST_AUTO_TEST_CASE(a_text_written_again_takes_no_more_room) {
  StoredRun run(folder);
  run.write_tokens({text("one", 1000, 0.5F)});
  const auto size = std::filesystem::file_size(path);
  for (int i = 0; i < 5; ++i) run.write_tokens({text("one", 1000, 0.25F)});
  BOOST_TEST(std::filesystem::file_size(path) < size + 50'000U);
}

BOOST_AUTO_TEST_CASE(a_text_that_cannot_be_written_leaves_the_file) {
  StoredRun run(folder);
  run.write_tokens({text("one", 3, 0.25F)});
  TokenRouting wrong = text("two", 3, 0.5F);
  wrong.score.pop_back();
  BOOST_CHECK_THROW(run.write_tokens({text("one", 3, 0.75F), wrong}), IoError);
  BOOST_TEST((found("one") == std::pair<float, std::size_t>{0.25F, 3}));
  // The file, and the note of who holds its folder.
  BOOST_TEST(std::distance(std::filesystem::directory_iterator(folder), {}) == 2);
}

BOOST_AUTO_TEST_CASE(what_is_no_run_is_refused) {
  const auto refused = [&](const std::filesystem::path& place) {
    return message_of<DataError>([&] { const StoredRun run(place); });
  };
  check_contains(refused(folder / "absent"), {"absent", "no such file"});
  std::filesystem::create_directory(folder / "empty");
  check_contains(refused(folder / "empty"), {"empty/results.h5", "no such file"});
  std::ofstream(folder / "text.h5") << "this is text";
  check_contains(refused(folder / "text.h5"), {"text.h5: not the results of a run", "signature"});
  { File file = File::create(folder / "other.h5"); }
  check_contains(refused(folder / "other.h5"), {"other.h5: not the results of a run", "'configuration'"});
}

BOOST_AUTO_TEST_CASE(what_a_file_claims_is_not_believed) {
  const auto refused = [&](const char* name, const auto& make) {
    std::filesystem::copy_file(path, folder / "other.h5", std::filesystem::copy_options::overwrite_existing);
    const hid_t file = H5Fopen((folder / "other.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    H5Ldelete(file, name, H5P_DEFAULT);
    make(file);
    H5Fclose(file);
    return message_of<DataError>([&] { const StoredRun run(folder / "other.h5"); });
  };
  const auto create = [](hid_t file, const char* name, const std::vector<hsize_t>& extent, hid_t properties) {
    const hid_t type = H5Tcopy(H5T_C_S1),
                space = extent.empty()
                            ? H5Screate(H5S_SCALAR)
                            : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
    H5Tset_size(type, H5T_VARIABLE);
    const bool numbers = std::string_view(name) != "user" || properties != H5P_DEFAULT;
    H5Dclose(H5Dcreate2(file, name, numbers ? H5T_NATIVE_DOUBLE : type, space, H5P_DEFAULT, properties,
                        H5P_DEFAULT));
    H5Sclose(space);
    H5Tclose(type);
  };
  const auto make = [&](const char* name, const std::vector<hsize_t>& extent) {
    return refused(name, [&](hid_t file) { create(file, name, extent, H5P_DEFAULT); });
  };
  check_contains(make("user", {hsize_t{1} << 50}),
                 {"other.h5", "(/user)", "1125899906842624 values claimed"});
  check_contains(make("user", {hsize_t{1} << 40, hsize_t{1} << 40}), {"other.h5", "(/user)", "overflows"});
  check_contains(make("layer", {}), {"other.h5", "'/layer' is no list"});
  const hid_t external = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(external, "/etc/passwd", 0, 16);
  check_contains(refused("user", [&](hid_t file) { create(file, "user", {2}, external); }),
                 {"other.h5", "(/user)", "in another file"});
  H5Pclose(external);
  // A view of another file's array, or of itself.
  for (const char* viewed : {"third.h5", "."}) {
    const hid_t view = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t length = 2;
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    H5Pset_virtual(view, space, viewed, "/user", space);
    check_contains(refused("user", [&](hid_t file) { create(file, "user", {length}, view); }),
                   {"other.h5", "(/user)", "in another file"});
    H5Sclose(space);
    H5Pclose(view);
  }
  std::filesystem::copy_file(path, folder / "third.h5");
  check_contains(refused("user",
                         [&](hid_t file) {
                           H5Lcreate_external("third.h5", "/user", file, "user", H5P_DEFAULT, H5P_DEFAULT);
                         }),
                 {"other.h5", "'user'"});
}

BOOST_AUTO_TEST_CASE(one_process_at_a_time) {
  const StoredRun run(folder);
  check_contains(message_of<ConfigError>([&] { const StoredRun second(folder); }), {"another run"});
}

BOOST_AUTO_TEST_SUITE_END()
