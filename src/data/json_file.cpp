#include "json_file.hpp"

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/mapped_file.hpp"

namespace comigs::data {

JsonFile::JsonFile(std::filesystem::path file, std::size_t most_bytes) : file_(std::move(file)) {
  const io::MappedFile text(file_);
  if (most_bytes > 0 && text.size_bytes() > most_bytes)
    throw DataError(
        fmt::format("{}: {} bytes, expected at most {}", file_.string(), text.size_bytes(), most_bytes));
  const std::string_view characters(reinterpret_cast<const char*>(text.data()), text.size_bytes());
  digest_ = sha256(text.bytes());
  root_ = Json::parse(characters, nullptr, false);
  if (root_.is_discarded()) throw DataError(fmt::format("{}: not valid JSON", file_.string()));
}

void JsonFile::fail(const std::string& where, std::string_view expected) const {
  throw DataError(fmt::format("{}: '{}' is missing or not {}", file_.string(), where, expected));
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

bool is_short_and_printable(std::string_view name) {
  return name.size() <= longest_name_bytes && std::none_of(name.begin(), name.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
         });
}

}  // namespace comigs::data
