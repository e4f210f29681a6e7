// The file that says which process holds a folder.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace comigs::io {

struct Owner {
  std::string host;     ///< for readers
  std::string machine;  ///< of which process numbers hold: one boot of one kernel, one process namespace
  std::int64_t process = 0;
  std::int64_t started = 0;  ///< clock ticks since the boot: a process number may be used again
  std::string token;         ///< random: no two holders have the same
};

/// This process, with a new token.
[[nodiscard]] Owner this_process();

/// "process 12 on n1", for messages.
[[nodiscard]] std::string describe(const Owner& owner);

/// Whether a process of this machine is there and has not ended.
[[nodiscard]] bool is_alive(const Owner& owner);

/// What lies at a place now.
struct FoundOwner {
  Owner owner;
  ino_t inode = 0;
  timespec touched{};

  [[nodiscard]] bool is_same_and_untouched(const FoundOwner& other) const;
};

/// Nothing where there is no file. Throws ConfigError where it is not an owner file, IoError where it cannot
/// be read.
[[nodiscard]] std::optional<FoundOwner> read_owner(const std::filesystem::path& file);

/// Writes the file whole. Where `replace` is false and there is one already, returns false and leaves that.
/// Throws IoError.
bool write_owner(const std::filesystem::path& file, const Owner& owner, bool replace);

}  // namespace comigs::io
