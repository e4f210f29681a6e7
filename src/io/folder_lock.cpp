#include "comigs/io/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/io/atomic_file.hpp"
#include "owner_file.hpp"

namespace comigs::io {
namespace {

namespace fs = std::filesystem;

constexpr int most_attempts = 100;

// File systems of one machine: ext2 to ext4, XFS, Btrfs, tmpfs, overlay, F2FS, ZFS, bcachefs, ramfs. Any
// other may be seen by several machines.
bool is_local(int descriptor) {
  constexpr std::array<std::uint32_t, 9> local = {0xEF53,     0x58465342, 0x9123683E, 0x01021994, 0x794C7630,
                                                  0xF2F52010, 0x2FC12FC1, 0xCA451A4E, 0x858458F6};
  struct statfs status {};
  return ::fstatfs(descriptor, &status) == 0 &&
         std::ranges::find(local, static_cast<std::uint32_t>(status.f_type)) != local.end();
}

int lock(int descriptor) {
  int result = 0;
  do {
    result = ::flock(descriptor, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

}  // namespace

class FolderLock::Holding {
 public:
  Holding(const fs::path& folder, const Pace& pace)
      : folder_(folder), file_(folder / owner_file), pace_(pace), self_(this_process()) {
    descriptor_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor_ < 0)
      throw IoError(fmt::format("cannot open folder '{}': {}", folder.string(), std::strerror(errno)));
    try {
      acquire();
    } catch (...) {
      ::close(descriptor_);
      throw;
    }
  }

  ~Holding() {
    if (beats_.joinable()) {
      beats_.request_stop();
      beats_.join();
    }
    if (is_own()) ::unlink(file_.c_str());
    if (beaten_ >= 0) ::close(beaten_);
    ::close(descriptor_);
  }

  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;

  void check() const {
    const std::optional<FoundOwner> found = read_owner(file_);
    if (found && found->owner.token == self_.token) return;
    throw IoError(fmt::format("'{}': {}; this run stops, and writes nothing more there", folder_.string(),
                              found ? describe(found->owner) + " has taken the folder over"
                                    : fmt::format("{} was removed", owner_file)));
  }

 private:
  void acquire() {
    const int reason = lock(descriptor_);
    if (reason == EWOULDBLOCK) refuse(read_owner(file_));
    lock_is_proof_ = reason == 0 && is_local(descriptor_);
    claim();
    if (lock_is_proof_) return remove_stale_temporaries(file_);
    if (reason != 0) {
      spdlog::warn("'{}': no locks on this file system ({}); {} keeps other runs away", folder_.string(),
                   std::strerror(reason), owner_file);
    } else {
      spdlog::info(
          "'{}' may be seen by other machines, which may not see each other's locks; {} keeps their "
          "runs away",
          folder_.string(), owner_file);
    }
    start_beating();
  }

  void claim() {
    for (int attempt = 0; attempt < most_attempts; ++attempt) {
      if (write_owner(file_, self_, false)) return;
      const std::optional<FoundOwner> found = read_owner(file_);
      if (!found) continue;
      if (found->owner.token == self_.token) return;  // a network file system said so twice
      if (!is_gone(*found)) refuse(read_owner(file_));
      write_owner(file_, self_, true);
      // Of several that took over at once the last one stays, and what the one before was writing ends.
      if (!lock_is_proof_) std::this_thread::sleep_for(pace_.settle);
      if (const std::optional<FoundOwner> now = read_owner(file_); !now || now->owner.token != self_.token)
        refuse(now);
      return;
    }
    throw IoError(fmt::format("'{}' comes and goes; other runs start in this folder", file_.string()));
  }

  [[nodiscard]] bool is_gone(const FoundOwner& found) const {
    if (found.owner.machine == self_.machine) return !is_alive(found.owner);
    if (lock_is_proof_) return true;
    spdlog::info("'{}' was held by {}; waiting {:.0f} s for a sign of life from there", folder_.string(),
                 describe(found.owner), std::chrono::duration<double>(pace_.silence).count());
    const auto begun = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begun < pace_.silence) {
      std::this_thread::sleep_for(pace_.beat / 2);
      const std::optional<FoundOwner> now = read_owner(file_);
      if (!now || !now->is_same_and_untouched(found)) return !now;
    }
    return true;
  }

  [[noreturn]] void refuse(const std::optional<FoundOwner>& found) const {
    throw ConfigError(
        fmt::format("'{}': another run is writing into this folder{}; choose another one or wait for its end",
                    folder_.string(), found ? " (" + describe(found->owner) + ")" : std::string()));
  }

  [[nodiscard]] bool is_own() const {
    try {
      const std::optional<FoundOwner> found = read_owner(file_);
      return found && found->owner.token == self_.token;
    } catch (const Error&) {
      return false;
    }
  }

  void start_beating() {
    beaten_ = ::open(file_.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    // Signals are for the threads that look at them.
    sigset_t all, before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    beats_ = std::jthread([this](const std::stop_token& stop) {
      std::mutex mutex;
      std::unique_lock held(mutex);
      while (!asleep_.wait_for(held, stop, pace_.beat, [&] { return stop.stop_requested(); }))
        ::futimens(beaten_, nullptr);  // one that was taken over touches its own file only, which is gone
    });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  fs::path folder_, file_;
  Pace pace_;
  Owner self_;
  int descriptor_ = -1, beaten_ = -1;
  bool lock_is_proof_ = false;
  std::condition_variable_any asleep_;
  std::jthread beats_;
};

FolderLock::FolderLock(const fs::path& folder, const Pace& pace)
    : holding_(std::make_unique<Holding>(folder, pace)) {}

FolderLock::~FolderLock() = default;

void FolderLock::check() const { holding_->check(); }

}  // namespace comigs::io
