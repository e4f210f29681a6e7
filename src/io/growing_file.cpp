#include "comigs/io/growing_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "comigs/base/error.hpp"

namespace comigs::io {
namespace {

constexpr std::uint64_t page_bytes = 4096;
// The superblock, which begins the file: of version 2, with addresses and lengths of 8 bytes.
constexpr unsigned char signature[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n', 2, 8, 8};
constexpr std::size_t superblock_bytes = 48, end_at = 28;

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + page_bytes - 1) / page_bytes * page_bytes; }

// Room ahead of the end, so that the superblock changes seldom: little beside the file.
std::uint64_t room_ahead(std::uint64_t end) {
  return whole_pages(std::min<std::uint64_t>(end / 8, std::uint64_t{1} << 20));
}

bool write_all(int descriptor, std::span<const std::byte> bytes, std::uint64_t place) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(place));
    if (written < 0 && errno != EINTR) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
    place += static_cast<std::uint64_t>(std::max<ssize_t>(written, 0));
  }
  return true;
}

// Zeros beyond the end of the file.
bool read_all(int descriptor, std::span<std::byte> bytes, std::uint64_t place) {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(place));
    if (got < 0 && errno != EINTR) return false;
    if (got == 0) {
      std::ranges::fill(bytes, std::byte{0});
      return true;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    place += static_cast<std::uint64_t>(std::max<ssize_t>(got, 0));
  }
  return true;
}

// The bytes that `piece`, which lies at `place`, has in common with a page: (offset in piece, in page, how
// many).
struct Overlap {
  std::size_t in_piece, in_page, count;
};
Overlap overlap(std::uint64_t place, std::size_t size, std::uint64_t page) {
  const std::uint64_t begin = std::max(place, page * page_bytes),
                      end = std::max(begin, std::min(place + size, (page + 1) * page_bytes));
  return {begin - place, begin - page * page_bytes, end - begin};
}

}  // namespace

GrowingFile::GrowingFile(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_RDWR | O_CLOEXEC)) {
  if (descriptor_ < 0) fail("open");
  first_page_ = stored_page(0);
  const bool can_grow =
      !first_page_.empty() && std::memcmp(first_page_.data(), signature, sizeof signature) == 0;
  if (!can_grow) {
    ::close(descriptor_);
    throw IoError(fmt::format("'{}' is no HDF5 file that can grow", path_.string()));
  }
  stated_end_ = committed_stated_end_ = encoded_end();
  end_ = committed_end_ = whole_pages(stated_end_);
}

GrowingFile::~GrowingFile() { ::close(descriptor_); }

void GrowingFile::fail(const char* action) const {
  throw IoError(fmt::format("cannot {} '{}': {}", action, path_.string(), std::strerror(errno)));
}

GrowingFile::Page GrowingFile::stored_page(std::uint64_t number) const noexcept {
  Page page(page_bytes);
  if (!read_all(descriptor_, page, number * page_bytes)) page.clear();
  return page;
}

std::uint64_t GrowingFile::size() const noexcept {
  struct stat status {};
  return ::fstat(descriptor_, &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

std::uint64_t GrowingFile::encoded_end() const noexcept {
  std::uint64_t end = 0;
  return read(end_at, std::as_writable_bytes(std::span(&end, 1))) ? end : 0;
}

void GrowingFile::begin(std::uint64_t growth_bytes, bool last) {
  last_ = last;
  size_before_ = size();
  const std::uint64_t most = std::max(size_before_, committed_end_ + growth_bytes);
  int result = 0;
  do {
    result = ::fallocate(descriptor_, 0, 0, static_cast<off_t>(most));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
    const int reason = errno;
    discard();
    errno = reason;
    fail("write");
  }
}

void GrowingFile::resize(std::uint64_t size_bytes) const {
  if (::ftruncate(descriptor_, static_cast<off_t>(size_bytes)) != 0) fail("resize");
}

void GrowingFile::synchronise() const {
  if (::fdatasync(descriptor_) != 0) fail("synchronise");
}

void GrowingFile::check_untouched() const {
  struct stat own {
  }, there{};
  const bool same = ::fstat(descriptor_, &own) == 0 && ::stat(path_.c_str(), &there) == 0 &&
                    own.st_dev == there.st_dev && own.st_ino == there.st_ino;
  if (!same)
    throw IoError(fmt::format("'{}' was removed or replaced while this run was writing it", path_.string()));
  if (stored_page(0) != first_page_)
    throw IoError(fmt::format("'{}': another program has written into it meanwhile", path_.string()));
}

void GrowingFile::commit() {
  check_untouched();
  stated_end_ = encoded_end();
  if (end_ > committed_end_ && stated_end_ < end_)
    throw IoError(fmt::format("'{}': its end was not written", path_.string()));
  resize(std::max(stated_end_, committed_stated_end_));
  synchronise();
  // From here on readers may find the new part: its room is taken, even if the rest fails.
  committed_end_ = end_ = whole_pages(end_);
  // The library also writes what it has not changed.
  std::erase_if(changed_, [&](const auto& page) { return page.second == stored_page(page.first); });
  write_changed_pages();
  changed_.clear();
  first_page_ = stored_page(0);
  if (stated_end_ < committed_stated_end_) resize(stated_end_);
  committed_stated_end_ = stated_end_;
}

void GrowingFile::write_changed_pages() const {
  if (changed_.empty()) return;
  if (changed_.rbegin()->first > 0) {
    // Nothing may lead beyond the end that the superblock states.
    if (changed_.contains(0) && stated_end_ > committed_stated_end_) {
      write_changed(0, superblock_bytes);
      synchronise();
    }
    for (auto page = changed_.rbegin(); page != changed_.rend() && page->first > 0; ++page)
      write_changed(page->first, page_bytes);
    synchronise();
  }
  if (changed_.contains(0)) write_changed(0, page_bytes);
  synchronise();
}

void GrowingFile::write_changed(std::uint64_t page, std::size_t size_bytes) const {
  const std::span<const std::byte> bytes = changed_.at(page);
  if (!write_all(descriptor_, bytes.first(size_bytes), page * page_bytes)) fail("write");
}

void GrowingFile::discard() noexcept {
  changed_.clear();
  end_ = committed_end_;
  stated_end_ = committed_stated_end_;
  if (size() > size_before_) static_cast<void>(!::ftruncate(descriptor_, static_cast<off_t>(size_before_)));
}

bool GrowingFile::read(std::uint64_t place, std::span<std::byte> bytes) const noexcept {
  if (!read_all(descriptor_, bytes, place)) return false;
  for (auto page = changed_.lower_bound(place / page_bytes); page != changed_.end(); ++page) {
    const Overlap common = overlap(place, bytes.size(), page->first);
    if (common.count == 0) break;
    std::memcpy(bytes.data() + common.in_piece, page->second.data() + common.in_page, common.count);
  }
  return true;
}

bool GrowingFile::write(std::uint64_t place, std::span<const std::byte> bytes, Kind kind) noexcept {
  if (bytes.empty()) return true;
  const bool held_back = kind == Kind::structure && place < committed_end_;
  if (!held_back && !write_all(descriptor_, bytes, place)) return false;
  for (std::uint64_t number = place / page_bytes; number * page_bytes < place + bytes.size(); ++number) {
    if (held_back && !changed_.contains(number)) {
      Page page = stored_page(number);
      if (page.empty()) return false;
      changed_.emplace(number, std::move(page));
    }
    const auto page = changed_.find(number);
    if (page == changed_.end()) continue;
    const Overlap common = overlap(place, bytes.size(), number);
    std::memcpy(page->second.data() + common.in_page, bytes.data() + common.in_piece, common.count);
  }
  return true;
}

std::uint64_t GrowingFile::allocate(std::uint64_t size_bytes, Kind kind) noexcept {
  if (kind == Kind::structure && size_bytes <= page_bytes &&
      end_ / page_bytes != (end_ + size_bytes - 1) / page_bytes)
    end_ = whole_pages(end_);
  const std::uint64_t place = std::exchange(end_, end_ + size_bytes);
  if (last_ || end_ > stated_end_) stated_end_ = whole_pages(end_) + (last_ ? 0 : room_ahead(end_));
  return place;
}

void GrowingFile::free(std::uint64_t place, std::uint64_t size_bytes) noexcept {
  if (place >= committed_end_ && place + size_bytes == end_) end_ = place;
}

void GrowingFile::state_end(std::uint64_t end) noexcept {
  if (is_opening_) {
    is_opening_ = end != encoded_end();
  } else {  // the library has lengthened what lies at the end
    end_ = std::max(end_, end);
  }
  stated_end_ = end;
}

}  // namespace comigs::io
