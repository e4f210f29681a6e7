// One process at a time in a folder, also where the system's locks do nothing.
#include "comigs/io/folder_lock.hpp"

#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

namespace fs = std::filesystem;
using namespace comigs;
using test::check_contains;
using test::message_of;

namespace {

enum class Locks { work, fail, pretend };
Locks locks = Locks::work;

std::ostream& operator<<(std::ostream& stream, Locks value) {
  constexpr const char* names[] = {"locks work", "locks fail", "locks pretend"};
  return stream << names[static_cast<int>(value)];
}

constexpr Locks all_kinds[] = {Locks::work, Locks::fail, Locks::pretend};

}  // namespace

// Takes the place of the C library's in this program: as Lustre answers without -o flock, and as a network
// file system does whose locks end at the machine.
extern "C" int flock(int descriptor, int operation) noexcept {
  if (locks == Locks::pretend) return 0;
  if (locks == Locks::work) return static_cast<int>(::syscall(SYS_flock, descriptor, operation));
  errno = ENOSYS;
  return -1;
}

namespace {

using io::FolderLock;
using namespace std::chrono_literals;

constexpr FolderLock::Pace quick{.beat = 5ms, .silence = 60ms, .settle = 1ms};

struct Folder : TemporaryFolder {
  fs::path owner = folder / FolderLock::owner_file;
  ~Folder() { locks = Locks::work; }

  [[nodiscard]] std::string refusal() const {
    return message_of<ConfigError>([&] { FolderLock(folder, quick); });
  }
  [[nodiscard]] nlohmann::json note() const {
    std::ifstream file(owner);
    return nlohmann::json::parse(file);
  }
  [[nodiscard]] std::string token() const { return note().at("token").get<std::string>(); }
  void write_note(const nlohmann::json& content) const { std::ofstream(owner) << content.dump(); }

  /// What a run of another machine leaves that ended without a word.
  void leave_note_of_another_machine() const {
    nlohmann::json content;
    {
      const FolderLock lock(folder, quick);
      content = note();
    }
    content["machine"] = "another boot/pid:[1]";
    content["host"] = "n7";
    content["token"] = "0123456789abcdef";
    write_note(content);
  }

  /// Lets another process take the folder, and kills it with SIGKILL.
  void be_held_by_a_killed_process() const {
    int ready[2];
    BOOST_REQUIRE(::pipe(ready) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const FolderLock lock(folder, quick);
      (void)!::write(ready[1], "x", 1);
      ::pause();
    }
    char answer = 0;
    BOOST_REQUIRE(::read(ready[0], &answer, 1) == 1);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
  }
};

}  // namespace

BOOST_DATA_TEST_CASE_F(Folder, a_second_one_is_refused_and_told_by_whom, all_kinds, kind) {
  locks = kind;
  {
    const FolderLock first(folder, quick);
    check_contains(refusal(), {folder.string(), "another run is writing into this folder",
                               "process " + std::to_string(::getpid())});
    BOOST_CHECK_NO_THROW(first.check());
  }
  BOOST_TEST(fs::is_empty(folder));
  const FolderLock next(folder, quick);
  BOOST_CHECK_NO_THROW(next.check());
}

BOOST_DATA_TEST_CASE_F(Folder, what_a_killed_one_left_is_taken_over, all_kinds, kind) {
  locks = kind;
  be_held_by_a_killed_process();
  BOOST_TEST(fs::exists(owner));
  {
    const FolderLock next(folder, quick);
    BOOST_CHECK_NO_THROW(next.check());
    BOOST_TEST(note().at("process").get<pid_t>() == ::getpid());
  }
  BOOST_TEST(fs::is_empty(folder));
}

BOOST_DATA_TEST_CASE_F(Folder, a_silent_one_of_another_machine_is_taken_over, all_kinds, kind) {
  locks = kind;
  leave_note_of_another_machine();
  const FolderLock next(folder, quick);
  BOOST_TEST(token() != "0123456789abcdef");
}

BOOST_FIXTURE_TEST_CASE(one_of_another_machine_that_shows_signs_of_life_is_left_alone, Folder) {
  locks = Locks::fail;
  leave_note_of_another_machine();
  std::atomic<bool> over = false;
  std::thread other([&] {
    while (!over) {
      fs::last_write_time(owner, fs::file_time_type::clock::now());
      std::this_thread::sleep_for(1ms);
    }
  });
  const std::string message = refusal();
  over = true;
  other.join();
  check_contains(message, {"another run is writing into this folder", "on n7"});
  BOOST_TEST(token() == "0123456789abcdef");
}

BOOST_FIXTURE_TEST_CASE(a_holder_shows_signs_of_life_where_locks_fail, Folder) {
  locks = Locks::fail;
  const FolderLock lock(folder, quick);
  const fs::file_time_type begun = fs::last_write_time(owner);
  while (fs::last_write_time(owner) == begun) std::this_thread::sleep_for(1ms);  // else the test never ends
  BOOST_CHECK_NO_THROW(lock.check());
}

BOOST_DATA_TEST_CASE_F(Folder, one_that_was_taken_over_finds_out_and_leaves_the_new_one_alone, all_kinds,
                       kind) {
  locks = kind;
  {
    const FolderLock suspended(folder, quick);
    nlohmann::json content = note();
    content["token"] = "fedcba9876543210";
    fs::remove(owner);
    check_contains(message_of<IoError>([&] { suspended.check(); }), {folder.string(), "was removed"});
    write_note(content);
    check_contains(message_of<IoError>([&] { suspended.check(); }),
                   {folder.string(), "has taken the folder over"});
  }
  BOOST_TEST(token() == "fedcba9876543210");
}

BOOST_FIXTURE_TEST_CASE(files_of_others_with_the_name_are_neither_read_nor_replaced, Folder) {
  const auto refused = [&] { check_contains(refusal(), {owner.string(), "found something else"}); };
  std::ofstream(owner) << "precious";
  refused();
  BOOST_TEST(fs::file_size(owner) == 8U);
  fs::rename(owner, folder / "kept");
  fs::create_symlink(folder / "kept", owner);
  refused();
  BOOST_TEST(fs::is_symlink(owner));
  BOOST_TEST(fs::file_size(folder / "kept") == 8U);
  fs::remove(owner);
  fs::create_directory(owner);
  BOOST_CHECK_THROW(FolderLock(folder, quick), Error);
  BOOST_TEST(fs::is_directory(owner));
}

BOOST_FIXTURE_TEST_CASE(a_folder_that_is_none_is_an_error, Folder) {
  check_contains(message_of<IoError>([&] { FolderLock(folder / "absent"); }), {"absent", "No such file"});
}
