// A file's bytes, mapped into memory and shared with every process that maps the same file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace comigs::io {

/// Owns a read-only mapping of a whole file; the destructor unmaps it. Hold it by shared_ptr where views
/// outlive a scope. Throws DataError with the file's name where it is absent, unreadable, empty, not a
/// regular file, or a pointer that Git LFS or Git Xet left in its place.
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
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

}  // namespace comigs::io
