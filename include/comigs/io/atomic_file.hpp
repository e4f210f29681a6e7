// Files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace comigs::io {

/// Owns a temporary file beside `target`, which `commit()` moves over it; without a commit the destructor
/// removes it. The temporary's name is unique, its mode follows the umask and is never world-writable. Every
/// member throws IoError with the file and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Writes all of the file `source`; file systems that can share blocks do so.
  void copy_from(const std::filesystem::path& source);
  /// Claims room on the disk for a file of this length, so that "disk full" comes now; later writes shorten
  /// or fill it. Does nothing on file systems that cannot.
  void reserve(std::uint64_t size_bytes);
  /// For libraries that write by name; they must have closed the file before `commit`.
  [[nodiscard]] const std::filesystem::path& temporary_path() const noexcept { return temporary_; }
  /// The bytes reach the disk, then the name, then the folder's entry: after a return no power cut loses the
  /// file.
  void commit();
  /// The same where nothing has the name; else returns false, and what is there stays.
  [[nodiscard]] bool commit_if_absent();

 private:
  void synchronise();
  void give_up_temporary() noexcept;
  void write_some(const std::byte* data, std::size_t size_bytes);
  bool share_blocks(int source);

  std::filesystem::path target_, temporary_;
  int descriptor_ = -1;
};

/// Replaces `target` by these bytes or this text; throws IoError and leaves `target` as it was.
void write_atomically(const std::filesystem::path& target, std::span<const std::byte> bytes);
void write_atomically(const std::filesystem::path& target, std::string_view text);

/// The folder's entries reach the disk. Throws IoError.
void synchronise_folder(const std::filesystem::path& folder);

/// 16 random digits, for names that nobody else has.
[[nodiscard]] std::string random_hexadecimal();
[[nodiscard]] bool is_random_hexadecimal(std::string_view text);

/// Whether `name` is one that AtomicFile gives to the temporary file of a target of the name `target_name`.
[[nodiscard]] bool is_temporary_of(std::string_view name, std::string_view target_name);

/// Removes what AtomicFile left beside `target` in processes that were killed. Only for the one writer of
/// `target`.
void remove_stale_temporaries(const std::filesystem::path& target);

}  // namespace comigs::io
