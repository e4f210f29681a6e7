#include "comigs/io/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/base/system_reason.hpp"
#include "live_mappings.hpp"

namespace comigs::io {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view reason) {
  throw DataError(fmt::format("cannot read '{}': {}", path.string(), reason));
}

[[noreturn]] void refuse_by(int reason, const std::filesystem::path& path) {
  if (is_about_path(reason)) refuse(path, std::strerror(reason));
  throw IoError(fmt::format("cannot read '{}': {}", path.string(), std::strerror(reason)));
}

struct Descriptor {
  int value;
  ~Descriptor() { ::close(value); }
};

// What git leaves in the place of a large file that it has not fetched.
void refuse_pointer(const std::filesystem::path& path, std::string_view text) {
  if (text.starts_with("version https://git-lfs.github.com/spec/"))
    refuse(path,
           "it is a pointer of Git LFS, not the file itself; run 'git lfs pull' in the repository that it is "
           "from, or download it");
  if (text.starts_with("# xet version"))
    refuse(path,
           "it is a pointer of Git Xet, not the file itself; run 'git xet checkout' in the repository that "
           "it is from, or download it");
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  // O_NONBLOCK: a named pipe is refused below instead of waited for.
  const Descriptor file{::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status {};
  if (file.value < 0 || ::fstat(file.value, &status) != 0) {
    refuse_by(errno, path_);
  }
  if (!S_ISREG(status.st_mode)) {
    refuse(path_, S_ISDIR(status.st_mode) ? "it is a folder, not a file" : "it is not a regular file");
  }
  if (status.st_size == 0) {
    refuse(path_, "it is empty");
  }
  size_bytes_ = static_cast<std::size_t>(status.st_size);
  void* const address = ::mmap(nullptr, size_bytes_, PROT_READ, MAP_SHARED, file.value, 0);
  if (address == MAP_FAILED) {
    refuse_by(errno, path_);
  }
  data_ = static_cast<const std::byte*>(address);
  try {
    refuse_pointer(path_, {static_cast<const char*>(address), size_bytes_});
  } catch (...) {
    ::munmap(address, size_bytes_);
    throw;
  }
  opened_.emplace(status);
  LiveMappings::add(*this);
}

MappedFile::~MappedFile() {
  LiveMappings::remove(*this);
  ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

void MappedFile::check_unchanged() const {
  const std::optional<FileState> now = FileState::of(path_);
  if (!now || !opened_->may_have_changed(*now)) {
    return;
  }
  const auto expected = static_cast<std::int64_t>(size_bytes_);
  throw DataError(
      fmt::format("'{}' changed while it was in use: {}", path_.string(),
                  now->size_bytes() == expected
                      ? std::string("it has been written to since it was opened")
                      : fmt::format("{} bytes now, {} when it was opened", now->size_bytes(), expected)));
}

void check_mapped_files() { LiveMappings::check_unchanged(); }

}  // namespace comigs::io
