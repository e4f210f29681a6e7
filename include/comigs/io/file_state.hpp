// What the system says of a file, by which a change of its content is noticed without reading it.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace comigs::io {

/// Length and times of a file at one moment.
class FileState {
 public:
  explicit FileState(const struct stat& status) : status_(status) {}
  /// Of the file that has this name; nothing where there is none that can be looked at.
  [[nodiscard]] static std::optional<FileState> of(const std::filesystem::path& path);

  /// Whether the content may be another one now, where `now` is of the same file. Owner, mode and further
  /// names of a file change without it: the time of its last change of any kind counts only where none of
  /// these explains it.
  [[nodiscard]] bool may_have_changed(const FileState& now) const;
  /// Of the same file with the same content, and of no other one on this machine, the text is the same.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::int64_t size_bytes() const noexcept { return status_.st_size; }

 private:
  struct stat status_;
};

}  // namespace comigs::io
