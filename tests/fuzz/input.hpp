// What the fuzz targets share: the input as text or as a file, and the only way in which it may be refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "comigs/base/error.hpp"
#include "support/temporary_folder.hpp"

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

/// The input as a file of a folder that is gone at the end of the process.
struct Folder : TemporaryFolder {
  std::filesystem::path write(const char* name, Input content) const {
    std::ofstream stream(folder / name, std::ios::binary | std::ios::trunc);
    stream.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    return folder / name;
  }
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
