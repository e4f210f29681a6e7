// An HDF5 file that grows in place while others read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <vector>

namespace comigs::io {

/// For one writer, which adds to the file in steps. What lies beyond the end of the last step is written as
/// it comes: nothing in the file leads there yet. What changes before that end is held back in memory until
/// `commit`, which makes the new part safe on the disk and then writes the changed pages, the first one last.
/// A page is written whole or not at all, whoever kills the process. So readers, and the process that comes
/// after a crash, always find a whole file, if each changed page is right beside the others' old and new
/// states, and what counts is in the first one. Readers are not locked out, and lock nobody out.
class GrowingFile {
 public:
  /// Throws IoError where the file cannot be opened for writing, or is not of a form that can grow.
  explicit GrowingFile(std::filesystem::path path);
  ~GrowingFile();
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// Begins a step that adds at most so many bytes; a full disk is told of now. `last`: none will follow, and
  /// no room is kept for one. Throws IoError.
  void begin(std::uint64_t growth_bytes, bool last);
  /// Ends the step; after the return no crash loses it. Throws IoError, also where the file at the path is no
  /// longer this one, or others have written into it.
  void commit();
  /// Forgets the step; the file is as before it.
  void discard() noexcept;

  // What the HDF5 library asks for. Where the result is false, errno says why.
  enum class Kind { numbers, structure };  ///< numbers are new ones: no reader looks for them yet
  [[nodiscard]] bool read(std::uint64_t place, std::span<std::byte> bytes) const noexcept;
  [[nodiscard]] bool write(std::uint64_t place, std::span<const std::byte> bytes, Kind kind) noexcept;
  /// Where so many new bytes go. Structure lies in one page, if it is no larger.
  [[nodiscard]] std::uint64_t allocate(std::uint64_t size_bytes, Kind kind) noexcept;
  /// Takes the last allocation back; room before it is not used again.
  void free(std::uint64_t place, std::uint64_t size_bytes) noexcept;
  /// The library opens the file, and will state the end that it finds.
  void opened() noexcept { is_opening_ = true; }
  /// The end that the superblock states. It is moved on by more than is needed, so that it seldom changes.
  [[nodiscard]] std::uint64_t stated_end() const noexcept { return stated_end_; }
  void state_end(std::uint64_t end) noexcept;
  [[nodiscard]] std::uint64_t size() const noexcept;

 private:
  using Page = std::vector<std::byte>;
  [[noreturn]] void fail(const char* action) const;
  [[nodiscard]] Page stored_page(std::uint64_t number) const noexcept;
  [[nodiscard]] std::uint64_t encoded_end() const noexcept;
  void check_untouched() const;
  void resize(std::uint64_t size_bytes) const;
  void synchronise() const;
  void write_changed(std::uint64_t page, std::size_t size_bytes) const;
  void write_changed_pages() const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  bool last_ = false;
  std::uint64_t end_ = 0;         ///< of what is in use
  std::uint64_t stated_end_ = 0;  ///< at least `end_`
  bool is_opening_ = false;
  std::uint64_t committed_end_ = 0, committed_stated_end_ = 0;  ///< after the last step
  std::uint64_t size_before_ = 0;                               ///< the step
  std::map<std::uint64_t, Page> changed_;  ///< pages before `committed_end_`, as they will be
  Page first_page_;                        ///< after the last step
};

}  // namespace comigs::io
