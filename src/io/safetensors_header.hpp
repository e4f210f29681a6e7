// The JSON header of a safetensors file, checked before anything believes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comigs/io/safetensors.hpp"

namespace comigs::io {

/// What a header says: views into the file's bytes.
struct SafetensorsHeader {
  SafetensorsFile::Tensors tensors;
  SafetensorsFile::Metadata metadata;
};

inline constexpr std::uint64_t length_field_bytes = 8;
inline constexpr std::uint64_t header_limit_bytes = 100'000'000;  // the format's own limit

/// Checks the whole header against the file: throws DataError that begins with `file_name`.
[[nodiscard]] SafetensorsHeader parse_header(std::span<const std::byte> file, const std::string& file_name);

/// Number of elements of a shape, or of bytes; throws std::overflow_error where it exceeds 63 bits.
[[nodiscard]] std::int64_t count_elements(std::span<const std::int64_t> shape);
[[nodiscard]] std::uint64_t count_bytes(std::span<const std::int64_t> shape, Dtype dtype);

/// The dtype with this name in the format; false where there is none.
[[nodiscard]] bool dtype_from_name(std::string_view name, Dtype& dtype);
[[nodiscard]] std::string known_dtypes();

}  // namespace comigs::io
