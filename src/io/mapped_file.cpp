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

namespace comigs::io {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view reason) {
  throw DataError(fmt::format("cannot read '{}': {}", path.string(), reason));
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
    refuse(path_, std::strerror(errno));
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
    refuse(path_, std::strerror(errno));
  }
  data_ = static_cast<const std::byte*>(address);
  try {
    refuse_pointer(path_, {static_cast<const char*>(address), size_bytes_});
  } catch (...) {
    ::munmap(address, size_bytes_);
    throw;
  }
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), size_bytes_); }

}  // namespace comigs::io
