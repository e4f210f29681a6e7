// Sets of checkpoints: what is written is read back bit for bit, or not at all.
#include "comigs/results/checkpoint.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>

#include "comigs/base/error.hpp"
#include "comigs/io/safetensors.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

using namespace comigs;
using namespace comigs::results;
using test::check_contains;
using test::message_of;

namespace fs = std::filesystem;

namespace {

const RoundShape shape{.layers = 2, .experts = 3, .users = 2};

UserStanding some_state() {
  UserStanding state{.progress = {.stage = Stage::training, .steps = 7, .record = {.round = 4}},
                     .start = {.round = 0},
                     .ranks_in_use = 5,
                     .participates = 0,
                     .aggregation = {0.25, -1e-300, INFINITY}};
  state.progress.record.routing.score = {0.1f, 0.2f, 0.3f};
  state.progress.record.seconds.experts = 1.5;
  state.start.after.test = {.loss_sum = 12.25, .tokens = 3};
  return state;
}

struct Checkpoints : TemporaryFolder {
  std::vector<float> values = std::vector<float>(1000), moments = std::vector<float>(1000);
  fs::path checkpoints = folder / "run" / "checkpoints";

  Checkpoints() {
    std::iota(values.begin(), values.end(), 0.5f);
    std::iota(moments.begin(), moments.end(), -100.0f);
    moments[3] = -0.0f;
  }

  [[nodiscard]] std::vector<StateBlock> blocks() { return {{"values", values}, {"first_moments", moments}}; }

  fs::path write(const UserStanding& state = some_state(), std::int64_t round = 4) {
    const fs::path set = next_set(checkpoints);
    CheckpointManifest manifest{.identity = {.configuration = "[run]\nseed = 3\n",
                                             .data_digest = "da7a",
                                             .base_digest = "ba5e",
                                             .init_adapter_digest = "ada9",
                                             .base_architecture = R"({"n_head": 2})",
                                             .activations = "bf16",
                                             .sequences_at_a_time = "64, 8",
                                             .users = {"German", "日本語"}},
                                .round = round,
                                .parts = {}};
    for (const std::size_t user : {0u, 1u})
      manifest.parts.push_back(write_part(set, user, state, blocks(), shape));
    write_manifest(set, manifest);
    return set;
  }

  /// What reading user 0's part of the set says; empty: it was read.
  std::string refusal(const fs::path& set) {
    return message_of<DataError>(
        [&] { (void)read_part(set, 0, read_manifest(set).parts.at(0), blocks(), shape); });
  }
};

void change_byte(const fs::path& path, std::uintmax_t place) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(place));
  const char old = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(place));
  file.put(static_cast<char>(old ^ 0x10));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(checkpoint, Checkpoints)

BOOST_AUTO_TEST_CASE(all_comes_back_bit_for_bit) {
  const UserStanding state = some_state();
  const fs::path set = write(state);
  const std::vector<float> kept_values = values, kept_moments = moments;
  std::fill(values.begin(), values.end(), 0.0f);
  std::fill(moments.begin(), moments.end(), 0.0f);
  const CheckpointManifest manifest = read_manifest(set);
  BOOST_TEST(manifest.round == 4);
  BOOST_TEST(manifest.identity.configuration == "[run]\nseed = 3\n");
  BOOST_TEST(manifest.identity.data_digest == "da7a");
  BOOST_TEST(manifest.identity.base_digest == "ba5e");
  BOOST_TEST(manifest.identity.init_adapter_digest == "ada9");
  BOOST_TEST(manifest.identity.base_architecture == R"({"n_head": 2})");
  BOOST_TEST(manifest.identity.activations == "bf16");
  BOOST_TEST(manifest.identity.sequences_at_a_time == "64, 8");
  BOOST_TEST((manifest.identity.users == std::vector<std::string>{"German", "日本語"}));
  const UserStanding found = read_part(set, 1, manifest.parts.at(1), blocks(), shape);
  BOOST_TEST((std::memcmp(values.data(), kept_values.data(), 4000) == 0));
  BOOST_TEST((std::memcmp(moments.data(), kept_moments.data(), 4000) == 0));
  BOOST_TEST((found.progress.stage == Stage::training));
  BOOST_TEST(found.progress.steps == 7);
  BOOST_TEST(found.progress.record.round == 4);
  BOOST_TEST((found.progress.record.routing.score == state.progress.record.routing.score));
  BOOST_TEST(found.progress.record.seconds.experts == 1.5);
  BOOST_TEST(found.start.after.test.loss_sum == 12.25);
  BOOST_TEST(found.ranks_in_use == 5);
  BOOST_TEST(found.participates == 0);
  BOOST_TEST((found.aggregation == state.aggregation));
}

BOOST_AUTO_TEST_CASE(any_byte_that_changed_is_found) {
  const fs::path set = write(), file = set / "user_0.safetensors";
  const std::uintmax_t size = fs::file_size(file);
  for (std::uintmax_t place = 0; place < size; place += 97) {
    change_byte(file, place);
    check_contains(refusal(set), {file.string(), "digest"});
    change_byte(file, place);
  }
  BOOST_CHECK_NO_THROW((void)read_part(set, 0, read_manifest(set).parts.at(0), blocks(), shape));
  fs::resize_file(file, size - 1);
  check_contains(refusal(set), {file.string(), std::to_string(size - 1), std::to_string(size)});
  fs::remove(file);
  check_contains(refusal(set), {file.string()});
}

BOOST_AUTO_TEST_CASE(other_blocks_are_refused) {
  const fs::path set = write();
  values.resize(999);
  check_contains(refusal(set), {"values", "1000", "999"});
}

BOOST_AUTO_TEST_CASE(a_manifest_that_is_none_is_refused) {
  const fs::path set = write();
  const auto with = [&](const std::string& text) {
    std::ofstream(set / "manifest.json") << text;
    return message_of<DataError>([&] { (void)read_manifest(set); });
  };
  const std::string path = (set / "manifest.json").string();
  check_contains(with(""), {path, "empty"});
  check_contains(with("{"), {path, "not valid JSON"});
  for (const char* text :
       {"[]", "7", "{}", R"({"format": "comigs-checkpoint"})", R"({"format": "other", "version": 1})",
        R"({"format": "comigs-checkpoint", "version": 2})",
        R"({"format": "comigs-checkpoint", "version": 2, "round": "x"})"})
    check_contains(with(text), {path, "not the manifest"});
}

BOOST_AUTO_TEST_CASE(sets_are_complete_with_their_manifest_and_old_ones_go) {
  BOOST_TEST(complete_sets(checkpoints).empty());
  const fs::path first = write(), second = write(), third = write();
  BOOST_TEST(third.filename().string() == "000003");
  // One that was being written when the run was killed.
  (void)write_part(next_set(checkpoints), 0, some_state(), blocks(), shape);
  fs::create_directory(checkpoints / "notes");
  BOOST_TEST((complete_sets(checkpoints) == std::vector<fs::path>{third, second, first}));
  BOOST_TEST(next_set(checkpoints).filename().string() == "000005");
  keep_newest_sets(checkpoints, 2);
  BOOST_TEST((complete_sets(checkpoints) == std::vector<fs::path>{third, second}));
  BOOST_TEST(!fs::exists(first));
  BOOST_TEST(!fs::exists(checkpoints / "000004"));
  BOOST_TEST(fs::exists(checkpoints / "notes"));
  keep_newest_sets(checkpoints, 0);
  BOOST_TEST(complete_sets(checkpoints).empty());
}

// People name folders by dates, and models' parts are files of such names.
BOOST_AUTO_TEST_CASE(folders_of_others_are_no_sets_whatever_their_names_are) {
  const auto put = [&](const char* folder_name, const char* name) {
    fs::create_directories(checkpoints / folder_name);
    std::ofstream(checkpoints / folder_name / name) << "three years of work";
    return checkpoints / folder_name / name;
  };
  const fs::path first = write();
  const std::vector<fs::path> theirs = {
      put("20251128", "thesis.tex"),         put("202511281530", "user_0.safetensors"),
      put("000002", "manifest.json"),        put("000002", "user_0.safetensors"),
      put("20251129", "user_x.safetensors"), put("000777", ".user_0.safetensors.tmp")};
  fs::create_directory(checkpoints / "20260101");
  fs::create_directory_symlink(checkpoints / "20251128", checkpoints / "20270101");
  const fs::path second = write();
  BOOST_TEST(second.filename().string() == "000003");
  // Beside what is ours, also in a set's folder.
  std::ofstream(first / "notes") << "mine";
  BOOST_TEST((complete_sets(checkpoints) == std::vector<fs::path>{second, first}));
  keep_newest_sets(checkpoints, 0);
  BOOST_TEST(complete_sets(checkpoints).empty());
  BOOST_TEST(!fs::exists(second));
  BOOST_TEST(!fs::exists(first / "user_0.safetensors"));
  BOOST_TEST(fs::exists(first / "notes"));
  for (const fs::path& file : theirs) BOOST_TEST(fs::file_size(file) == 19U, file.string());
  BOOST_TEST(fs::is_directory(checkpoints / "20260101"));
  BOOST_TEST(fs::is_symlink(checkpoints / "20270101"));
}

BOOST_AUTO_TEST_CASE(a_set_whose_manifest_is_damaged_goes_with_the_others) {
  const fs::path set = write();
  std::ofstream(set / "manifest.json") << "{";
  std::ofstream(set / ".user_1.safetensors.0123456789abcdef.tmp") << "half";
  BOOST_TEST((complete_sets(checkpoints) == std::vector<fs::path>{set}));
  keep_newest_sets(checkpoints, 0);
  BOOST_TEST(!fs::exists(set));
}

BOOST_AUTO_TEST_CASE(a_folder_that_cannot_be_made_is_said) {
  fs::create_directories(folder / "run");
  std::ofstream(checkpoints) << "a file";
  const std::string message = message_of<IoError>([&] { (void)write(); });
  check_contains(message, {checkpoints.string()});
}

BOOST_AUTO_TEST_SUITE_END()
