// Whatever moment of a write a reader, a kill or a power cut meets: the file is whole, with the round or
// without.
#include <fcntl.h>
#include <hdf5.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <fstream>
#include <set>

#include "comigs/base/error.hpp"
#include "comigs/results/results_file.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

using namespace comigs;
using results::ResultsFile;
using results::RunDescription;

namespace {

// What a step asks of the system, in its order; nothing else of this program is recorded.
struct Write {
  enum class Kind { bytes, size, barrier } kind;  // barrier: what came before is on the disk
  std::uint64_t place;                            // or the new size
  std::vector<char> bytes;
};
bool recording = false;
std::vector<Write> writes;

}  // namespace

extern "C" ssize_t pwrite(int file, const void* bytes, std::size_t size, off_t place) noexcept(false) {
  if (recording) {
    const auto* const begin = static_cast<const char*>(bytes);
    writes.push_back({Write::Kind::bytes, static_cast<std::uint64_t>(place), {begin, begin + size}});
  }
  return ::syscall(SYS_pwrite64, file, bytes, size, place);
}
extern "C" int fdatasync(int file) noexcept(false) {
  if (recording) writes.push_back({Write::Kind::barrier, 0, {}});
  return static_cast<int>(::syscall(SYS_fdatasync, file));
}
extern "C" int ftruncate(int file, off_t size) noexcept {
  if (recording) writes.push_back({Write::Kind::size, static_cast<std::uint64_t>(size), {}});
  return static_cast<int>(::syscall(SYS_ftruncate, file, size));
}

namespace {

constexpr std::int64_t user_count = 2, layers = 2;

RunDescription description(std::int64_t rounds) {
  RunDescription run;
  run.title = "a test";
  run.layers = layers;
  run.rounds = rounds;
  for (std::int64_t i = 0; i < user_count; ++i) {
    results::UserDescription user;
    user.name = "user " + std::to_string(i);
    user.experts = 2;
    run.users.push_back(user);
  }
  return run;
}

std::vector<results::UserRound> rows_of(std::int64_t round, bool last) {
  std::vector<results::UserRound> rows(user_count);
  for (results::UserRound& row : rows) {
    row.round = round;
    row.after.test = {static_cast<double>(round) * 10, 10};
    row.routing.score.assign(2 * layers, static_cast<float>(round));
    if (last) row.before.test = {3.0, 1};
  }
  return rows;
}

struct Factors {
  std::vector<float> values = std::vector<float>(24, 1.5F);
  std::vector<std::vector<ParameterView>> views;
  Factors() {
    std::vector<ParameterView> of_user;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      for (std::int64_t expert : {0, 1})
        of_user.push_back({layer, expert, "up_A", 4, 6, values.data(), "lora_rank", "width", "expert"});
      of_user.push_back({layer, -1, "weight", 2, 12, values.data(), "", "", "router"});
    }
    views.assign(user_count, of_user);
  }
};

// What a reader finds: reads everything; what cannot be read is counted.
struct Found {
  std::set<hsize_t> lengths;  // of the arrays that grow
  std::set<std::string> weights;
  int failures = 0;
};

void look_at_array(hid_t file, const char* name, Found& found) {
  const hid_t array = H5Dopen2(file, name, H5P_DEFAULT);
  const hid_t space = H5Dget_space(array), type = H5Dget_type(array);
  hsize_t now[8] = {}, most[8] = {};
  if (array < 0 || H5Sget_simple_extent_dims(space, now, most) < 0) {
    ++found.failures;
    return;
  }
  if (most[0] == H5S_UNLIMITED) found.lengths.insert(now[0]);
  if (H5Tget_class(type) != H5T_STRING && H5Sget_simple_extent_npoints(space) > 0) {
    std::vector<double> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    if (H5Dread(array, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) ++found.failures;
    if (std::string_view(name) == "round" && values.back() != static_cast<double>(values.size() - 1))
      ++found.failures;
    if (std::string_view(name).ends_with("up_A") && values.front() != 1.5) ++found.failures;
  }
  H5Tclose(type);
  H5Sclose(space);
  H5Dclose(array);
}

Found look_at(const std::filesystem::path& path) {
  Found found;
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const auto visit = [](hid_t object, const char* name, const H5O_info_t* info, void* data) -> herr_t {
    Found& all = *static_cast<Found*>(data);
    const std::string_view text(name);
    if (info->type == H5O_TYPE_DATASET) look_at_array(object, name, all);
    if (const auto at = text.find("expert/weights/"); at == 0 && text.find('/', 15) == text.npos)
      all.weights.emplace(text.substr(15));
    return 0;
  };
  if (file < 0 || H5Ovisit(file, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &found) < 0) ++found.failures;
  H5Fclose(file);
  return found;
}

std::vector<char> content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The file as it is after these writes.
class Image {
 public:
  Image(std::vector<char> before, std::filesystem::path path)
      : bytes_(std::move(before)), path_(std::move(path)) {}
  void apply(const Write& write) {
    if (write.kind == Write::Kind::size) return bytes_.resize(write.place);
    bytes_.resize(std::max(bytes_.size(), write.place + write.bytes.size()));
    std::ranges::copy(write.bytes, bytes_.begin() + static_cast<std::ptrdiff_t>(write.place));
  }
  [[nodiscard]] Found found() const {
    std::ofstream(path_, std::ios::binary).write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    return look_at(path_);
  }

 private:
  std::vector<char> bytes_;
  std::filesystem::path path_;
};

void check(const Found& found, std::int64_t round, bool weights_stored) {
  BOOST_REQUIRE(found.failures == 0);
  BOOST_REQUIRE(found.lengths.size() == 1U);
  const auto length = static_cast<std::int64_t>(*found.lengths.begin());
  BOOST_REQUIRE(length == round || length == round + 1);
  // A round that is there is there with its weights.
  if (weights_stored && length == round + 1) BOOST_REQUIRE(found.weights.contains(std::to_string(round)));
}

// Splits what was recorded at the barriers.
std::vector<std::vector<Write>> phases() {
  std::vector<std::vector<Write>> result(1);
  for (const Write& write : writes) {
    if (write.kind == Write::Kind::barrier)
      result.emplace_back();
    else
      result.back().push_back(write);
  }
  return result;
}

// The choices among so many writes: all, or, of many, each one alone and all but one.
std::vector<std::vector<bool>> choices_of(std::size_t count) {
  std::vector<std::vector<bool>> choices;
  for (std::size_t choice = 0; count < 6 && choice < std::size_t{1} << count; ++choice) {
    choices.emplace_back();
    for (std::size_t i = 0; i < count; ++i) choices.back().push_back((choice >> i & 1) != 0);
  }
  for (std::size_t one = 0; count >= 6 && one < count; ++one) {
    for (const bool alone : {true, false}) {
      choices.emplace_back(count, !alone);
      choices.back()[one] = alone;
    }
  }
  return choices;
}

// Every prefix of the step's writes, and, as disks write in any order, choices of those between two barriers.
void check_every_moment(const std::vector<char>& before, const std::filesystem::path& scratch,
                        std::int64_t round, bool weights_stored) {
  Image image(before, scratch);
  bool is_tail = true;
  for (const std::vector<Write>& phase : phases()) {
    for (const std::vector<bool>& choice :
         is_tail ? std::vector<std::vector<bool>>() : choices_of(phase.size())) {
      Image other = image;
      for (std::size_t i = 0; i < phase.size(); ++i)
        if (choice[i]) other.apply(phase[i]);
      check(other.found(), round, weights_stored);
    }
    for (std::size_t i = 0; i < phase.size(); ++i) {
      image.apply(phase[i]);
      // A page is what the system writes whole.
      if (!is_tail && phase[i].kind == Write::Kind::bytes)
        BOOST_REQUIRE(phase[i].place / 4096 == (phase[i].place + phase[i].bytes.size() - 1) / 4096);
      if (is_tail && i % 16 != 0) continue;
      const Found found = image.found();
      check(found, round, weights_stored);
      if (is_tail) BOOST_REQUIRE(*found.lengths.begin() == static_cast<hsize_t>(round));
    }
    is_tail = false;
  }
  BOOST_REQUIRE(*image.found().lengths.begin() == static_cast<hsize_t>(round + 1));
}

}  // namespace

BOOST_FIXTURE_TEST_CASE(a_write_that_is_cut_anywhere_leaves_a_whole_file, TemporaryFolder) {
  const auto path = folder / "results.h5";
  const Factors factors;
  constexpr std::int64_t rounds = 12, room = 5;  // less than comes, so that room is taken again
  ResultsFile file(path, description(room));
  std::size_t barriers = 0;
  for (std::int64_t round = 0; round <= rounds; ++round) {
    const std::vector<char> before = content(path);
    const bool weights_stored = round % 2 == 1 || round > 7;
    writes.clear();
    recording = true;
    if (weights_stored) file.write_weights(round, factors.views);
    file.write_round(rows_of(round, round == rounds));
    recording = false;
    check_every_moment(before, folder / "scratch.h5", round, weights_stored);
    barriers += phases().size() - 1;
  }
  BOOST_TEST(barriers > 2U * rounds);
  BOOST_TEST(look_at(path).weights.size() == 9U);
}

BOOST_FIXTURE_TEST_CASE(a_round_costs_what_the_round_has, TemporaryFolder) {
  const auto path = folder / "results.h5";
  const Factors factors;
  ResultsFile file(path, description(200));
  std::vector<std::size_t> pages;
  for (std::int64_t round = 0; round < 200; ++round) {
    writes.clear();
    recording = true;
    file.write_weights(round, factors.views);
    file.write_round(rows_of(round, false));
    recording = false;
    std::size_t count = 0;
    for (const std::vector<Write>& phase : phases()) {
      std::set<std::uint64_t> touched;
      for (const Write& write : phase)
        for (std::uint64_t page = write.place / 4096; page * 4096 < write.place + write.bytes.size(); ++page)
          touched.insert(page);
      count += touched.size();
    }
    pages.push_back(count);
  }
  BOOST_TEST(*std::max_element(pages.begin() + 100, pages.end()) <=
             *std::max_element(pages.begin() + 1, pages.begin() + 50) + 1);
}

BOOST_FIXTURE_TEST_CASE(an_open_reader_goes_on_reading, TemporaryFolder) {
  const auto path = folder / "results.h5";
  ResultsFile file(path, description(300));
  file.write_round(rows_of(0, false));
  const hid_t held = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  for (std::int64_t round = 1; round <= 300; ++round) file.write_round(rows_of(round, round == 300));
  Found found;
  for (const char* name : {"perplexity/test", "routing/score", "round"}) look_at_array(held, name, found);
  H5Fclose(held);
  BOOST_TEST(found.failures == 0);
  BOOST_TEST(found.lengths.size() == 1U);
}

BOOST_FIXTURE_TEST_CASE(what_others_do_to_the_file_is_noticed, TemporaryFolder) {
  const auto path = folder / "results.h5";
  const auto refusal = [&](ResultsFile& file) {
    return test::message_of<IoError>([&] { file.write_round(rows_of(1, false)); });
  };
  {
    ResultsFile file(path, description(3));
    file.write_round(rows_of(0, false));
    std::filesystem::rename(path, folder / "moved.h5");
    test::check_contains(refusal(file), {path.string(), "removed or replaced"});
    std::filesystem::copy_file(folder / "moved.h5", path);
    test::check_contains(refusal(file), {path.string(), "removed or replaced"});
  }
  std::filesystem::remove(path);
  ResultsFile file(path, description(3));
  file.write_round(rows_of(0, false));
  const hid_t other = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  H5Gclose(H5Gcreate2(other, "mine", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Fclose(other);
  test::check_contains(refusal(file), {path.string(), "another program"});
}

BOOST_FIXTURE_TEST_CASE(files_of_another_layout_are_not_gone_on_with, TemporaryFolder) {
  const auto path = folder / "results.h5";
  { ResultsFile(path, description(3)).write_round(rows_of(0, false)); }
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t version = H5Aopen(file, "schema_version", H5P_DEFAULT);
  const std::int64_t older = 1;
  H5Awrite(version, H5T_NATIVE_INT64, &older);
  H5Aclose(version);
  H5Fclose(file);
  const auto before = content(path);
  test::check_contains(test::message_of<ConfigError>([&] {
                         ResultsFile(path, description(3), ResultsFile::Existing::go_on).check_found();
                       }),
                       {path.string(), "schema_version 1, expected 2"});
  BOOST_TEST((content(path) == before));
}

BOOST_FIXTURE_TEST_CASE(weights_of_a_round_that_was_cut_short_are_written_again, TemporaryFolder) {
  const auto path = folder / "results.h5";
  const Factors factors;
  std::vector<char> cut;
  {
    ResultsFile file(path, description(9));
    file.write_round(rows_of(0, false));
    Image image(content(path), folder / "cut.h5");
    writes.clear();
    recording = true;
    file.write_weights(1, factors.views);
    file.write_round(rows_of(1, false));
    recording = false;
    const auto all = phases();
    for (std::size_t i = 0; i + 2 < all.size(); ++i)
      for (const Write& write : all[i]) image.apply(write);
    const Found found = image.found();
    BOOST_TEST(found.failures == 0);
    BOOST_TEST(found.weights.contains("1"));
    BOOST_TEST((found.lengths == std::set<hsize_t>{1}));
  }
  std::filesystem::rename(folder / "cut.h5", path);
  ResultsFile file(path, description(9), ResultsFile::Existing::go_on);
  file.check_found();
  file.write_weights(1, factors.views);
  file.write_round(rows_of(1, false));
  const Found found = look_at(path);
  BOOST_TEST(found.failures == 0);
  BOOST_TEST(found.weights.contains("1"));
  BOOST_TEST((found.lengths == std::set<hsize_t>{2}));
}
