// One process at a time in a folder.
#pragma once

#include <filesystem>

namespace comigs::io {

/// Holds a folder for this process until it is destroyed or the process ends, however it ends. Nothing is
/// left behind. Throws ConfigError where another process holds it, IoError where it cannot be opened. Where
/// the file system knows no locks, there is none.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace comigs::io
