// A file's bytes, mapped into memory and shared with every process that maps the same file.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>

#include "comigs/io/file_state.hpp"

namespace comigs::io {

/// Owns a read-only mapping of a whole file; the destructor unmaps it. Hold it by shared_ptr where views
/// outlive a scope. Throws DataError with the file's name where it is absent, unreadable, empty, not a
/// regular file, or a pointer that Git LFS or Git Xet left in its place; IoError where the machine fails (no
/// memory, no descriptors, a broken disk). A file that is written over shows in its mapping
/// (`check_mapped_files`); one that is replaced under its name does not. Where the process touches what the
/// file has lost since, it ends with a message that names the file: exit code 2 where the file became
/// shorter, 1 where it cannot be read any more.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] const std::byte* data() const noexcept { return data_; }  ///< aligned to a page
  [[nodiscard]] std::size_t size_bytes() const noexcept { return size_bytes_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_bytes_}; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  friend class LiveMappings;
  /// Throws DataError where the content may not be what it was when the file was opened.
  void check_unchanged() const;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
  std::optional<FileState> opened_;
  mutable std::atomic<const MappedFile*> next_ = nullptr;  ///< of the process's mappings
};

/// Throws DataError naming the file where the content of one that this process has mapped may not be what it
/// was when it was opened: another length, or written to since. To be asked before what was made from them is
/// handed on; costs a system call a file. Network file systems may answer from memory a few seconds old.
void check_mapped_files();

}  // namespace comigs::io
