#include "comigs/io/file_state.hpp"

#include <fmt/format.h>

#include <tuple>

namespace comigs::io {
namespace {

bool same(const timespec& one, const timespec& other) {
  return one.tv_sec == other.tv_sec && one.tv_nsec == other.tv_nsec;
}

auto attributes(const struct stat& status) {
  return std::tuple(status.st_mode, status.st_uid, status.st_gid, status.st_nlink);
}

}  // namespace

std::optional<FileState> FileState::of(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return std::nullopt;
  }
  return FileState(status);
}

bool FileState::may_have_changed(const FileState& now) const {
  const struct stat &old = status_, &found = now.status_;
  if (old.st_dev != found.st_dev || old.st_ino != found.st_ino) {
    return false;  // another file has its name now; it may have none
  }
  if (old.st_size != found.st_size || !same(old.st_mtim, found.st_mtim)) {
    return true;
  }
  // Who writes over a file can set the time of its content back (cp -p), but not this one.
  return !same(old.st_ctim, found.st_ctim) && attributes(old) == attributes(found);
}

std::string FileState::text() const {
  return fmt::format("{}:{} {} {}.{} {}.{}", status_.st_dev, status_.st_ino, status_.st_size,
                     status_.st_mtim.tv_sec, status_.st_mtim.tv_nsec, status_.st_ctim.tv_sec,
                     status_.st_ctim.tv_nsec);
}

}  // namespace comigs::io
