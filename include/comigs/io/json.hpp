// JSON that others wrote.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace comigs::io {

/// The largest file that is read as JSON: a tokeniser has tens of megabytes at most.
inline constexpr std::size_t most_json_bytes = std::size_t{1} << 28;

/// Parses a file's content. Throws DataError that begins with `file_name` where it is larger than
/// `most_bytes`, no JSON in UTF-8 (with line and byte, both from 1), has a key twice in one object, or is
/// nested deeper than any file of ours: copying, comparing and printing a document recurse as deep.
[[nodiscard]] nlohmann::json parse_json(std::span<const std::byte> content, const std::string& file_name,
                                        std::size_t most_bytes = most_json_bytes);

}  // namespace comigs::io
