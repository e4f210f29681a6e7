#include "comigs/io/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "comigs/base/error.hpp"

namespace comigs::io {

FolderLock::FolderLock(const std::filesystem::path& folder)
    : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0)
    throw IoError(fmt::format("cannot open folder '{}': {}", folder.string(), std::strerror(errno)));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);
  throw ConfigError(
      fmt::format("'{}': another run is writing into this folder; choose another one or wait for its end",
                  folder.string()));
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace comigs::io
