// One process at a time in a folder.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>

namespace comigs::io {

/// Holds a folder for this process until it is destroyed or the process ends, however it ends.
///
/// Two means work together. The system's lock of the folder (flock) ends with its process, but some file
/// systems have none, and network file systems may know one for each machine only. So the holder also writes
/// the file `.comigs-owner` there, which names machine, process and a random token. What a dead holder left
/// is taken over at once where its process was of this machine or where the file system is local, so that the
/// lock was the proof; else only after nothing has touched the file for `Pace::silence`, which a living
/// holder does every `Pace::beat`. Who was taken over, because it was suspended or cut off for so long, finds
/// out by `check`. What remains: a write that began before the folder was taken over and lasts longer than
/// `Pace::settle`.
class FolderLock {
 public:
  static constexpr const char* owner_file = ".comigs-owner";

  struct Pace {
    std::chrono::milliseconds beat{5'000}, silence{30'000}, settle{2'000};
  };

  /// Throws ConfigError where another process holds the folder or something else has the owner file's name,
  /// IoError where the folder cannot be opened or written into. May wait for `silence` and `settle`. Logs
  /// where locks are not to be relied on.
  explicit FolderLock(const std::filesystem::path& folder, const Pace& pace);
  explicit FolderLock(const std::filesystem::path& folder) : FolderLock(folder, Pace{}) {}
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  /// Before whatever replaces, removes or adds to files of the folder: throws IoError where it is no longer
  /// this process's. Any thread.
  void check() const;

 private:
  class Holding;
  std::unique_ptr<Holding> holding_;
};

}  // namespace comigs::io
