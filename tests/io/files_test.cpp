// Atomic files, mapped files, digests.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <csignal>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"
#include "support/temporary_folder.hpp"

namespace fs = std::filesystem;
using namespace comigs;

namespace {

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

template <class Error, class Function>
std::string message_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

BOOST_FIXTURE_TEST_CASE(committed_file_replaces_the_old_one, TemporaryFolder) {
  io::write_atomically(folder / "a.txt", std::string_view("old"));
  io::AtomicFile file(folder / "a.txt");
  file.write(std::string_view("new "));
  file.write(std::string_view("text"));
  BOOST_TEST(content(folder / "a.txt") == "old");
  BOOST_TEST(file.temporary_path().parent_path() == folder);
  file.commit();
  BOOST_TEST(content(folder / "a.txt") == "new text");
  BOOST_TEST(entries(folder) == 1U);
}

BOOST_FIXTURE_TEST_CASE(file_without_commit_leaves_nothing, TemporaryFolder) {
  io::write_atomically(folder / "a.txt", std::string_view("old"));
  { io::AtomicFile(folder / "a.txt").write(std::string_view("half of")); }
  BOOST_TEST(content(folder / "a.txt") == "old");
  BOOST_TEST(entries(folder) == 1U);
}

BOOST_FIXTURE_TEST_CASE(mode_follows_the_umask, TemporaryFolder) {
  const auto mode_under = [&](mode_t mask) {
    const mode_t before = ::umask(mask);
    io::write_atomically(folder / "a.txt", std::string_view("text"));
    ::umask(before);
    struct stat status {};
    ::stat((folder / "a.txt").c_str(), &status);
    return status.st_mode & 0777;
  };
  BOOST_TEST(mode_under(022) == 0644U);
  BOOST_TEST(mode_under(077) == 0600U);
  BOOST_TEST(mode_under(0) == 0664U);
}

BOOST_FIXTURE_TEST_CASE(two_writers_do_not_meet, TemporaryFolder) {
  io::AtomicFile first(folder / "a.txt"), second(folder / "a.txt");
  first.write(std::string_view("first"));
  second.write(std::string_view("second"));
  first.commit();
  BOOST_TEST(content(folder / "a.txt") == "first");
  second.commit();
  BOOST_TEST(content(folder / "a.txt") == "second");
}

BOOST_FIXTURE_TEST_CASE(copy_is_whole, TemporaryFolder) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{3'000'001}}) {
    std::string text(size, 'x');
    for (std::size_t i = 0; i < size; ++i) {
      text[i] = static_cast<char>(i * 31 % 251);
    }
    io::write_atomically(folder / "from", text);
    io::AtomicFile file(folder / "to");
    file.copy_from(folder / "from");
    file.commit();
    BOOST_TEST((content(folder / "to") == text));
  }
  // A file of a virtual file system has no size that it tells of: the copy falls back to reading.
  io::AtomicFile file(folder / "limits");
  file.copy_from("/proc/self/limits");
  file.commit();
  BOOST_TEST(has(content(folder / "limits"), "Max open files"));
}

BOOST_FIXTURE_TEST_CASE(errors_name_the_file_and_the_reason, TemporaryFolder) {
  const std::string absent =
      message_of<IoError>([&] { io::write_atomically(folder / "no" / "a.txt", std::string_view("x")); });
  BOOST_TEST(has(absent, "no/a.txt"));
  BOOST_TEST(has(absent, "No such file or directory"));
  io::AtomicFile file(folder / "b.txt");
  BOOST_TEST(has(message_of<IoError>([&] { file.copy_from(folder / "absent"); }), "absent"));
}

BOOST_FIXTURE_TEST_CASE(full_disk_is_said_and_the_old_file_stays, TemporaryFolder) {
  io::write_atomically(folder / "a.txt", std::string_view("old"));
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1000, before.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string message =
      message_of<IoError>([&] { io::write_atomically(folder / "a.txt", std::string(5000, 'x')); });
  const std::string reservation =
      message_of<IoError>([&] { io::AtomicFile(folder / "a.txt").reserve(5000); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  BOOST_TEST(has(reservation, "File too large"));
  BOOST_TEST(has(message, "a.txt"));
  BOOST_TEST(has(message, "File too large"));
  BOOST_TEST(content(folder / "a.txt") == "old");
  BOOST_TEST(entries(folder) == 1U);
}

BOOST_FIXTURE_TEST_CASE(stale_temporaries_go_and_nothing_else, TemporaryFolder) {
  for (const char* name :
       {".a.txt.0123456789abcdef.tmp", ".a.txt.0123456789abcdeX.tmp", ".b.txt.0123456789abcdef.tmp",
        "a.txt.0123456789abcdef.tmp", ".a.txt.tmp", "a.txt"}) {
    std::ofstream(folder / name) << "x";
  }
  fs::create_directory(folder / ".a.txt.1123456789abcdef.tmp");
  io::remove_stale_temporaries(folder / "a.txt");
  BOOST_TEST(!fs::exists(folder / ".a.txt.0123456789abcdef.tmp"));
  BOOST_TEST(entries(folder) == 6U);
  io::remove_stale_temporaries(folder / "no" / "a.txt");
}

BOOST_FIXTURE_TEST_CASE(mapping_shows_the_bytes, TemporaryFolder) {
  io::write_atomically(folder / "a.bin", std::string_view("some bytes"));
  const io::MappedFile file(folder / "a.bin");
  fs::remove(folder / "a.bin");  // the mapping outlives the name
  BOOST_TEST(file.size_bytes() == 10U);
  BOOST_TEST(std::memcmp(file.data(), "some bytes", 10) == 0);
  BOOST_TEST(reinterpret_cast<std::uintptr_t>(file.data()) % 4096 == 0U);
}

BOOST_FIXTURE_TEST_CASE(unmappable_files_are_data_errors, TemporaryFolder) {
  std::ofstream(folder / "empty").flush();
  BOOST_REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  const auto refusal = [&](const fs::path& path) {
    return message_of<DataError>([&] { io::MappedFile file(path); });
  };
  BOOST_TEST(has(refusal(folder / "absent"), "absent': No such file"));
  BOOST_TEST(has(refusal(folder / "empty"), "empty': it is empty"));
  BOOST_TEST(has(refusal(folder), "it is a folder"));
  BOOST_TEST(has(refusal(folder / "pipe"), "not a regular file"));
}

// What git leaves where a large file has not been fetched.
BOOST_FIXTURE_TEST_CASE(pointers_are_told_from_files, TemporaryFolder) {
  const auto refusal = [&](std::string_view text) {
    io::write_atomically(folder / "model.safetensors", text);
    return message_of<DataError>([&] { io::MappedFile file(folder / "model.safetensors"); });
  };
  const std::string lfs =
      refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 548105171\n");
  BOOST_TEST(has(lfs, "model.safetensors': it is a pointer of Git LFS"));
  BOOST_TEST(has(lfs, "git lfs pull"));
  BOOST_TEST(has(refusal("# xet version 0\nfilesize = 548105171\nhash = '0123'\n"), "a pointer of Git Xet"));
  io::write_atomically(folder / "text", std::string_view("version https://git-lfs"));
  BOOST_CHECK_NO_THROW(io::MappedFile(folder / "text"));
}

BOOST_FIXTURE_TEST_CASE(digests_are_those_of_the_standard, TemporaryFolder) {
  const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  BOOST_TEST(sha256(std::string_view("abc")) == abc);
  BOOST_TEST(sha256(std::string_view("")) ==
             "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  io::write_atomically(folder / "abc", std::string_view("abc"));
  BOOST_TEST(sha256_of_file(folder / "abc") == abc);
  BOOST_TEST(has(message_of<DataError>([&] { (void)sha256_of_file(folder / "absent"); }), "absent"));
  BOOST_TEST(has(message_of<DataError>([&] { (void)sha256_of_file(folder); }), "folder"));
  BOOST_REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  BOOST_TEST(
      has(message_of<DataError>([&] { (void)sha256_of_file(folder / "pipe"); }), "not a regular file"));
}

BOOST_AUTO_TEST_CASE(json_of_others_is_bounded) {
  const auto refusal = [](const std::string& text, std::size_t most_bytes = io::most_json_bytes) {
    return message_of<DataError>(
        [&] { (void)io::parse_json(std::as_bytes(std::span(text)), "a.json", most_bytes); });
  };
  const auto nested = [](std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  BOOST_TEST(refusal(nested(65)) == "a.json: nested more than 64 levels deep");
  BOOST_TEST(refusal(nested(1'000'000)) == "a.json: nested more than 64 levels deep");
  BOOST_TEST(refusal("{\"a\": 1e999}") == "a.json: not valid JSON: number overflow parsing '1e999'");
  BOOST_TEST(refusal("[1, 2]", 5) == "a.json: 6 bytes, expected at most 5");
  const std::string deepest = nested(64);
  BOOST_TEST(io::parse_json(std::as_bytes(std::span(deepest)), "a.json").is_array());
}

BOOST_AUTO_TEST_CASE(json_that_is_none_is_told_where) {
  using namespace std::string_literals;
  const auto refusal = [](const std::string& text) {
    return message_of<DataError>([&] { (void)io::parse_json(std::as_bytes(std::span(text)), "a.json"); });
  };
  BOOST_TEST(
      has(refusal("{\"a\": 1,\n \"b\": tru}"), "a.json: not valid JSON: line 2, byte 19: syntax error"));
  BOOST_TEST(has(refusal("{\"a\": \"\xff\"}"), "line 1, byte 8: "));
  BOOST_TEST(has(refusal("{\"a\": \"x\0\"}"s), "line 1, byte 9: "));
  BOOST_TEST(has(refusal("{} []"), "line 1, byte 4: "));
  BOOST_TEST(has(refusal("\xEF\xBB\xBF{}"), "begins with a byte order mark"));
  BOOST_TEST(has(refusal("\xFF\xFE{\0}\0"s), "byte order mark of UTF-16"));
  BOOST_TEST(has(refusal("{\0}\0"s), "line 1, byte 2: "));
  BOOST_TEST(refusal("[{\"a\": 1}, {\"b\": {\"a\": 1}, \"b\": 2}]") == "a.json: an object has 'b' twice");
  const std::string once = "[{\"a\": {\"a\": 1, \"b\": {}}, \"b\": 1}, {\"a\": 1}]";
  BOOST_CHECK_NO_THROW((void)io::parse_json(std::as_bytes(std::span(once)), "a.json"));
}
