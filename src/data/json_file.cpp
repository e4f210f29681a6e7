#include "json_file.hpp"

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"

namespace comigs::data {

JsonFile::JsonFile(std::filesystem::path file, std::size_t most_bytes) : file_(std::move(file)) {
  const io::MappedFile text(file_);
  root_ = io::parse_json(text.bytes(), file_.string(), most_bytes);
  digest_ = sha256(text.bytes());
}

void JsonFile::fail(const std::string& where, std::string_view expected) const {
  throw DataError(fmt::format("{}: '{}' is missing or not {}", file_.string(), printable(where), expected));
}

const Json& JsonFile::member(const Json& object, const std::string& name, const std::string& where) const {
  if (!object.is_object() || !object.contains(name)) fail(where + name, "there");
  return object.at(name);
}

std::string JsonFile::text(const Json& object, const std::string& name, const std::string& where) const {
  const Json& value = member(object, name, where);
  if (!value.is_string() || value.get_ref<const std::string&>().empty()) fail(where + name, "a text");
  return value.get<std::string>();
}

std::int64_t JsonFile::count(const Json& object, const std::string& name, const std::string& where) const {
  const Json& value = member(object, name, where);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > (std::uint64_t{1} << 48))
    fail(where + name, "a count");
  return value.get<std::int64_t>();
}

bool is_printable(std::string_view text) { return printable(text, text.size()) == text; }

bool is_short_and_printable(std::string_view name) {
  return name.size() <= longest_name_bytes && is_printable(name);
}

}  // namespace comigs::data
