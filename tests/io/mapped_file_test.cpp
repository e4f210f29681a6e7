// Files that change while they are mapped.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <csignal>
#include <fstream>
#include <functional>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/mapped_file.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

namespace fs = std::filesystem;
using namespace comigs;
using test::check_contains;

namespace {

constexpr std::string_view content = "some bytes";

struct Mapped : TemporaryFolder {
  fs::path path = folder / "a.bin";
  std::optional<io::MappedFile> file;

  Mapped() {
    io::write_atomically(path, content);
    file.emplace(path);
  }

  void write_over(char byte) const {
    std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary);
    stream.put(byte);
  }
};

std::string complaint() { return test::message_of<DataError>(&io::check_mapped_files); }

// The exit code of a process that does this, and what it writes on standard error.
struct Ended {
  int code = -1;
  std::string errors;
};

Ended in_a_process(const std::function<void()>& work) {
  std::array<int, 2> pipe{};
  BOOST_REQUIRE(::pipe(pipe.data()) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe[1], STDERR_FILENO);
    work();
    ::_exit(0);
  }
  ::close(pipe[1]);
  Ended ended;
  std::array<char, 256> part{};
  for (ssize_t size = 0; (size = ::read(pipe[0], part.data(), part.size())) > 0;)
    ended.errors.append(part.data(), static_cast<std::size_t>(size));
  ::close(pipe[0]);
  int status = 0;
  BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
  return ended;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(mapped_files_that_change, Mapped)

BOOST_AUTO_TEST_CASE(nothing_is_said_of_one_that_does_not) {
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
  (void)std::ifstream(path).get();
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
}

BOOST_AUTO_TEST_CASE(one_that_is_written_over_is_named) {
  write_over('S');
  BOOST_TEST(static_cast<char>(file->data()[0]) == 'S');  // the mapping shows it
  check_contains(complaint(), {path.string(), "written to"});
  file.reset();
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
}

BOOST_AUTO_TEST_CASE(setting_its_time_back_does_not_hide_it) {
  struct stat before {};
  BOOST_REQUIRE(::stat(path.c_str(), &before) == 0);
  write_over('S');
  const std::array times = {before.st_atim, before.st_mtim};
  BOOST_REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0) == 0);
  check_contains(complaint(), {path.string(), "written to"});
}

BOOST_AUTO_TEST_CASE(other_lengths_are_said) {
  fs::resize_file(path, 4);
  check_contains(complaint(), {path.string(), "4 bytes now, 10 when"});
  fs::resize_file(path, 12);
  check_contains(complaint(), {path.string(), "12 bytes now, 10 when"});
}

BOOST_AUTO_TEST_CASE(what_leaves_the_content_is_none_of_it) {
  fs::permissions(path, fs::perms::owner_read);
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
  fs::create_hard_link(path, folder / "b.bin");
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
  // Replaced under its name, as `git` and write-then-rename do: the mapping keeps the old one.
  io::write_atomically(path, std::string_view("others"));
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
  fs::remove(path);
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
  BOOST_TEST(std::memcmp(file->data(), content.data(), content.size()) == 0);
}

BOOST_AUTO_TEST_CASE(any_of_several_is_found) {
  io::write_atomically(folder / "b.bin", content);
  io::write_atomically(folder / "c.bin", content);
  const io::MappedFile b(folder / "b.bin"), c(folder / "c.bin");
  file.reset();  // from the middle of the list
  BOOST_CHECK_NO_THROW(io::check_mapped_files());
  fs::resize_file(folder / "b.bin", 1);
  check_contains(complaint(), {"b.bin"});
}

BOOST_AUTO_TEST_CASE(touching_what_was_cut_ends_the_process_by_name) {
  const Ended ended = in_a_process([&] {
    const io::MappedFile own(path);
    fs::resize_file(path, 0);
    static_cast<void>(*static_cast<const volatile std::byte*>(own.data()));
  });
  BOOST_TEST(ended.code == 2);
  BOOST_TEST(ended.errors == "comigs: '" + path.string() +
                                 "' was cut while it was in use: 0 bytes now, 10 when it was opened\n");
}

BOOST_AUTO_TEST_CASE(faults_elsewhere_are_left_to_whoever_handles_them) {
  file.reset();
  const Ended ended = in_a_process([&] {
    std::signal(SIGBUS, [](int) { ::_exit(7); });
    const io::MappedFile own(path);
    const int other = ::open((folder / "other").c_str(), O_RDWR | O_CREAT, 0600);
    const void* place = ::mmap(nullptr, 1, PROT_READ, MAP_SHARED, other, 0);
    static_cast<void>(*static_cast<const volatile std::byte*>(place));
  });
  BOOST_TEST(ended.code == 7);
  BOOST_TEST(ended.errors.empty());
}

BOOST_AUTO_TEST_SUITE_END()
