// What the fuzz targets share: the input as text or as a file, and the only way in which it may be refused.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "comigs/base/error.hpp"

namespace comigs::fuzz {

using Input = std::span<const std::byte>;

inline Input input(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

inline std::string_view text(Input input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

/// Stops the fuzzer, which then keeps the input.
inline void require(bool holds) {
  if (!holds) std::abort();
}

/// A folder of this process's own, removed at its end.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "comigs-fuzz-XXXXXX").string();
    require(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const char* name, Input content) const {
    std::ofstream stream(path_ / name, std::ios::binary | std::ios::trunc);
    stream.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

/// Refused is well, in one readable message; any other exception ends the fuzzer.
template <class Work>
void accept_or_refuse(const Work& work) {
  try {
    work();
  } catch (const ConfigError& error) {
    require(std::string_view(error.what()).size() < 100'000);
  } catch (const DataError& error) {
    const std::string_view message = error.what();
    require(message.size() < 1000 && message.find_first_of("\n\r\x1b") == message.npos);
  }
}

}  // namespace comigs::fuzz
