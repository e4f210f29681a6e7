// What a failed system call means for the exit code.
#pragma once

#include <cerrno>

namespace comigs {

/// Whether an errno speaks of the path that was named (absent, not permitted, no folder, a link in circles)
/// and not of the machine (memory, disk, descriptors): the first is bad input, the second a failure.
[[nodiscard]] constexpr bool is_about_path(int reason) {
  switch (reason) {
    case ENOENT:
    case EACCES:
    case EPERM:
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
    case EROFS:
    case ENXIO:
    case ENODEV:
      return true;
    default:
      return false;
  }
}

}  // namespace comigs
