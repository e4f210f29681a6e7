// Checked HDF5 calls, for the files of this room that make them.
#pragma once

#include <hdf5.h>

#include <string>
#include <string_view>
#include <type_traits>

#include "comigs/io/hdf5.hpp"

namespace comigs::io::hdf5 {

static_assert(std::is_same_v<hid_t, std::int64_t>, "HDF5 1.10 or newer is needed");

/// Throws IoError with HDF5's innermost message; `place` names the file and the object.
[[noreturn]] void fail(const std::string& place, std::string_view action);

/// The file and the path inside it of an open identifier.
[[nodiscard]] std::string place_of(hid_t id);

/// Passes a good result of an HDF5 call on; a negative one, the library's sign of failure, becomes an
/// IoError.
template <class Result>
Result check(Result result, hid_t place, std::string_view action) {
  if (result < 0) {
    fail(place_of(place), action);
  }
  return result;
}

[[nodiscard]] hid_t memory_type(Type type);
[[nodiscard]] Object variable_text_type();
[[nodiscard]] Object property_list(hid_t list_class);

}  // namespace comigs::io::hdf5
