// SHA-256 digests, by which data sets, models and checkpoints are recognised.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace comigs {

/// The digest as 64 lower-case hexadecimal digits.
[[nodiscard]] std::string sha256(std::span<const std::byte> bytes);
[[nodiscard]] std::string sha256(std::string_view text);

/// The same of a file's content, read in pieces. Throws DataError with the file's name where it cannot be
/// read, IoError where the machine fails.
[[nodiscard]] std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace comigs
