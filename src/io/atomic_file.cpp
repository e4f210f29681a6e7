#include "comigs/io/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "comigs/base/error.hpp"

namespace comigs::io {
namespace {

constexpr int name_attempts = 100;
constexpr std::size_t random_digits = 16;
constexpr std::string_view suffix = ".tmp";
constexpr std::string_view hexadecimal = "0123456789abcdef";

[[noreturn]] void fail(std::string_view action, const std::filesystem::path& path) {
  throw IoError(fmt::format("cannot {} '{}': {}", action, path.string(), std::strerror(errno)));
}

std::string prefix_for(std::string_view target_name) { return fmt::format(".{}.", target_name); }

std::filesystem::path folder_of(const std::filesystem::path& target) {
  return target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
}

struct Descriptor {
  int value;
  ~Descriptor() { ::close(value); }
};

}  // namespace

std::string random_hexadecimal() {
  std::random_device source;
  std::string digits;
  while (digits.size() < random_digits) {
    digits.push_back(hexadecimal[source() % hexadecimal.size()]);
  }
  return digits;
}

bool is_random_hexadecimal(std::string_view text) {
  return text.size() == random_digits && text.find_first_not_of(hexadecimal) == text.npos;
}

// Exactly the names that the constructor gives, so that nobody else's file is ever taken for one.
bool is_temporary_of(std::string_view name, std::string_view target_name) {
  const std::string prefix = prefix_for(target_name);
  return name.starts_with(prefix) && name.ends_with(suffix) &&
         name.size() == prefix.size() + random_digits + suffix.size() &&
         is_random_hexadecimal(name.substr(prefix.size(), random_digits));
}

void synchronise_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    fail("open the folder", folder);
  }
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  // Some network file systems know no fsync of a folder, and say so in this way.
  if (result != 0 && reason != EINVAL && reason != ENOTSUP) {
    errno = reason;
    fail("synchronise the folder", folder);
  }
}

AtomicFile::AtomicFile(std::filesystem::path target) : target_(std::move(target)) {
  for (int attempt = 0; attempt < name_attempts && descriptor_ < 0; ++attempt) {
    temporary_ = folder_of(target_) /
                 (prefix_for(target_.filename().string()) + random_hexadecimal() + std::string(suffix));
    constexpr mode_t never_world_writable = 0664;
    descriptor_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, never_world_writable);
    if (descriptor_ < 0 && errno != EEXIST) {
      break;
    }
  }
  if (descriptor_ < 0) {
    fail("create", target_);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) {
    give_up_temporary();
  }
}

void AtomicFile::give_up_temporary() noexcept {
  ::close(std::exchange(descriptor_, -1));
  ::unlink(temporary_.c_str());
}

void AtomicFile::write_some(const std::byte* data, std::size_t size_bytes) {
  while (size_bytes > 0) {
    const ssize_t written = ::write(descriptor_, data, size_bytes);
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      fail("write", target_);
    }
    data += written;
    size_bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) { write_some(bytes.data(), bytes.size()); }

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

// True when all was copied; false, with nothing written, where the file systems cannot do it.
bool AtomicFile::share_blocks(int source) {
  constexpr std::size_t at_once = std::size_t{1} << 30;
  for (bool first = true;; first = false) {
    const ssize_t copied = ::copy_file_range(source, nullptr, descriptor_, nullptr, at_once, 0);
    if (copied > 0 || (copied < 0 && errno == EINTR)) {
      continue;
    }
    if (copied == 0) {
      // Some virtual file systems report "nothing left" at once for files that have content.
      struct stat status {};
      return !first || (::fstat(source, &status) == 0 && status.st_size == 0);
    }
    if (!first) {
      fail("write", target_);
    }
    return false;
  }
}

void AtomicFile::copy_from(const std::filesystem::path& source) {
  const Descriptor input{::open(source.c_str(), O_RDONLY | O_CLOEXEC)};
  if (input.value < 0) {
    fail("read", source);
  }
  if (share_blocks(input.value)) {
    return;
  }
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  while (true) {
    const ssize_t got = ::read(input.value, buffer.data(), buffer.size());
    if (got == 0) {
      return;
    }
    if (got < 0 && errno != EINTR) {
      fail("read", source);
    }
    write_some(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
}

void AtomicFile::reserve(std::uint64_t size_bytes) {
  int result = 0;
  do {
    result = ::fallocate(descriptor_, 0, 0, static_cast<off_t>(size_bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
    fail("write", target_);
  }
}

void AtomicFile::synchronise() {
  if (::fsync(descriptor_) != 0) {
    fail("synchronise", target_);
  }
}

void AtomicFile::commit() {
  synchronise();
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    fail("replace", target_);
  }
  ::close(std::exchange(descriptor_, -1));
  synchronise_folder(folder_of(target_));
}

bool AtomicFile::commit_if_absent() {
  synchronise();
  const char *const temporary = temporary_.c_str(), *const target = target_.c_str();
  // Some file systems have no second names of a file; those rename without replacing.
  const bool linked = ::link(temporary, target) == 0;
  if (!linked && errno != EEXIST &&
      ::renameat2(AT_FDCWD, temporary, AT_FDCWD, target, RENAME_NOREPLACE) != 0 && errno != EEXIST) {
    fail("create", target_);
  }
  const bool taken = !linked && errno == EEXIST;
  give_up_temporary();
  if (!taken) {
    synchronise_folder(folder_of(target_));
  }
  return !taken;
}

void write_atomically(const std::filesystem::path& target, std::span<const std::byte> bytes) {
  AtomicFile file(target);
  file.write(bytes);
  file.commit();
}

void write_atomically(const std::filesystem::path& target, std::string_view text) {
  write_atomically(target, std::as_bytes(std::span(text)));
}

void remove_stale_temporaries(const std::filesystem::path& target) {
  const std::string target_name = target.filename().string();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_of(target), error)) {
    if (is_temporary_of(entry.path().filename().string(), target_name) &&
        entry.symlink_status().type() == std::filesystem::file_type::regular) {
      std::filesystem::remove(entry.path(), error);  // one that cannot be removed disturbs nobody
    }
  }
}

}  // namespace comigs::io
