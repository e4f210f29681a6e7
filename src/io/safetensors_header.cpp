#include "safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"

namespace comigs::io {
namespace {

using Json = nlohmann::json;
static_assert(std::endian::native == std::endian::little,
              "token and tensor files are little-endian and used as they are");

constexpr std::size_t most_axes =
    16;  // more than any tensor has; bounds what a hostile header can make us allocate
constexpr std::size_t most_reason_bytes = 200;

// The reasons below become one message that begins with the file's name.
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Follows the parser: refuses what has not the form {name: {key: value or [numbers]}} before it is stored,
// and names that come twice, which the finished document no longer shows.
class ParseGuard {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
        require_form(depth < 2);
        names_[static_cast<std::size_t>(depth)].clear();
        break;
      case Json::parse_event_t::array_start:
        require_form(depth == 2);
        numbers_ = 0;
        break;
      case Json::parse_event_t::key:
        add_name(names_.at(static_cast<std::size_t>(depth) - 1), parsed.get_ref<const std::string&>());
        break;
      case Json::parse_event_t::value:
        require_form(depth > 1);
        if (depth > 2 && ++numbers_ > most_axes) {
          throw Refusal(fmt::format("its header has a list of more than {} numbers", most_axes));
        }
        break;
      default:
        break;
    }
    return true;
  }

 private:
  static void require_form(bool holds) {
    if (!holds) {
      throw Refusal("its header has not the form {name: {dtype, shape, data_offsets}}");
    }
  }
  static void add_name(std::set<std::string>& names, const std::string& name) {
    if (!names.insert(name).second) {
      throw Refusal(fmt::format("its header names '{}' twice", printable(name)));
    }
  }
  std::array<std::set<std::string>, 2> names_;  // by depth
  std::size_t numbers_ = 0;
};

Json parse_json(std::string_view text) {
  if (text.empty() || text.front() != '{') {
    throw Refusal("its header does not begin with '{'");
  }
  ParseGuard guard;
  try {
    return Json::parse(text, [&guard](int depth, Json::parse_event_t event, Json& parsed) {
      return guard(depth, event, parsed);
    });
  } catch (const Json::exception& error) {
    const std::string_view reason = error.what();  // "[json.exception.parse_error.101] parse error at ..."
    const auto bracket = reason.find("] ");
    throw Refusal(
        fmt::format("its header is not JSON: {}",
                    printable(bracket == std::string_view::npos ? reason : reason.substr(bracket + 2),
                              most_reason_bytes)));
  }
}

const Json& member(const Json& entry, const char* key, const std::string& name) {
  const auto found = entry.find(key);
  if (found == entry.end()) {
    throw Refusal(fmt::format("tensor '{}' has no '{}'", printable(name), key));
  }
  return *found;
}

std::vector<std::int64_t> parse_shape(const Json& json, const std::string& name) {
  std::vector<std::int64_t> shape;
  if (!json.is_array()) {
    throw Refusal(fmt::format("the shape of tensor '{}' is not a list", printable(name)));
  }
  for (const Json& extent : json) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) {
      throw Refusal(fmt::format("the shape of tensor '{}' holds {}; a number from 0 to 2^63 - 1 was expected",
                                printable(name), printable(extent.dump())));
    }
    shape.push_back(extent.get<std::int64_t>());
  }
  return shape;
}

struct Extent {
  std::uint64_t begin = 0, end = 0;
};

Extent parse_offsets(const Json& json, const std::string& name) {
  if (!json.is_array() || json.size() != 2 || !json[0].is_number_unsigned() ||
      !json[1].is_number_unsigned() || json[0].get<std::uint64_t>() > json[1].get<std::uint64_t>()) {
    throw Refusal(
        fmt::format("the data_offsets of tensor '{}' are {}; [begin, end] with begin <= end was expected",
                    printable(name), printable(json.dump())));
  }
  return {json[0].get<std::uint64_t>(), json[1].get<std::uint64_t>()};
}

struct Entry {
  std::string name;
  TensorView tensor;
  Extent extent;
};

Entry parse_entry(const std::string& name, const Json& json) {
  Entry entry{name, {}, parse_offsets(member(json, "data_offsets", name), name)};
  const Json& dtype = member(json, "dtype", name);
  if (!dtype.is_string() || !dtype_from_name(dtype.get_ref<const std::string&>(), entry.tensor.dtype)) {
    throw Refusal(fmt::format("tensor '{}' has dtype {}; known are {}", printable(name),
                              printable(dtype.dump()), known_dtypes()));
  }
  entry.tensor.shape = parse_shape(member(json, "shape", name), name);
  std::uint64_t expected = 0;
  try {
    expected = count_bytes(entry.tensor.shape, entry.tensor.dtype);
  } catch (const std::overflow_error&) {
    throw Refusal(fmt::format("the shape of tensor '{}' overflows", printable(name)));
  }
  if (entry.extent.end - entry.extent.begin != expected) {
    throw Refusal(fmt::format("tensor '{}' has {} bytes; its dtype and shape need {}", printable(name),
                              entry.extent.end - entry.extent.begin, expected));
  }
  return entry;
}

SafetensorsFile::Metadata parse_metadata(const Json& json) {
  SafetensorsFile::Metadata metadata;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) {
      throw Refusal(fmt::format("its __metadata__ '{}' is not text", printable(key)));
    }
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

// Tensors must follow each other without overlap or hole and end where the file ends.
void check_extents(std::vector<Entry>& entries, std::uint64_t begin, std::uint64_t file_size) {
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.extent.begin, a.extent.end) < std::pair(b.extent.begin, b.extent.end);
  });
  std::uint64_t expected = 0;
  for (const Entry& entry : entries) {
    if (entry.extent.begin != expected) {
      throw Refusal(
          fmt::format("the data of tensor '{}' begin at {}; {} was expected ({})", printable(entry.name),
                      entry.extent.begin, expected,
                      entry.extent.begin < expected ? "it overlaps another tensor" : "there is a hole"));
    }
    expected = entry.extent.end;
  }
  if (expected != file_size - begin) {
    const bool truncated = expected > file_size - begin;
    const std::uint64_t claimed = expected > UINT64_MAX - begin ? UINT64_MAX : begin + expected;
    throw Refusal(fmt::format("it is {}: it has {} bytes, its header says {}",
                              truncated ? "truncated" : "too long", file_size, claimed));
  }
}

std::string_view header_text(std::span<const std::byte> file) {
  if (file.size() < length_field_bytes) {
    throw Refusal(fmt::format("it is truncated: it has {} bytes, a header needs at least {}", file.size(),
                              length_field_bytes));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > header_limit_bytes) {
    throw Refusal(
        fmt::format("its header claims {} bytes; the format allows {}", length, header_limit_bytes));
  }
  if (length > file.size() - length_field_bytes) {
    throw Refusal(fmt::format("it is truncated: it has {} bytes, its header alone needs {}", file.size(),
                              length + length_field_bytes));
  }
  return {reinterpret_cast<const char*>(file.data()) + length_field_bytes, static_cast<std::size_t>(length)};
}

SafetensorsHeader checked_header(std::span<const std::byte> file) {
  const std::string_view text = header_text(file);
  const std::uint64_t begin = length_field_bytes + text.size();
  const Json json = parse_json(text);
  SafetensorsHeader header;
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      header.metadata = parse_metadata(value);
    } else {
      entries.push_back(parse_entry(name, value));
    }
  }
  check_extents(entries, begin, file.size());
  for (Entry& entry : entries) {
    entry.tensor.bytes = file.subspan(static_cast<std::size_t>(begin + entry.extent.begin),
                                      static_cast<std::size_t>(entry.extent.end - entry.extent.begin));
    header.tensors.emplace(std::move(entry.name), std::move(entry.tensor));
  }
  return header;
}

}  // namespace

SafetensorsHeader parse_header(std::span<const std::byte> file, const std::string& file_name) {
  try {
    return checked_header(file);
  } catch (const Refusal& refusal) {
    throw DataError(fmt::format("'{}' is not a whole safetensors file: {}", file_name, refusal.what()));
  }
}

std::int64_t count_elements(std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    return 0;
  }
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(count, extent, &count)) {
      throw std::overflow_error("a tensor's shape is negative or too large");
    }
  }
  return count;
}

std::uint64_t count_bytes(std::span<const std::int64_t> shape, Dtype dtype) {
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(count_elements(shape), static_cast<std::int64_t>(element_size_bytes(dtype)),
                             &bytes)) {
    throw std::overflow_error("a tensor is too large");
  }
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace comigs::io
