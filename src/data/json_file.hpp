// One JSON file and its entries, with errors that say where they are.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "comigs/io/json.hpp"

namespace comigs::data {

using Json = nlohmann::json;

class JsonFile {
 public:
  /// Throws DataError where the file is unreadable, larger than `most_bytes` or no JSON (see io::parse_json).
  explicit JsonFile(std::filesystem::path file, std::size_t most_bytes = io::most_json_bytes);

  [[nodiscard]] const Json& root() const { return root_; }
  [[nodiscard]] const std::string& digest() const { return digest_; }  ///< SHA-256 of the file

  /// Throws DataError: `where` is missing or not what was expected.
  [[noreturn]] void fail(const std::string& where, std::string_view expected) const;

  /// Entries of an object that lies at `where` ("users[2].", empty for the root).
  [[nodiscard]] const Json& member(const Json& object, const std::string& name,
                                   const std::string& where) const;
  [[nodiscard]] std::string text(const Json& object, const std::string& name, const std::string& where) const;
  [[nodiscard]] std::int64_t count(const Json& object, const std::string& name,
                                   const std::string& where) const;

 private:
  std::filesystem::path file_;
  std::string digest_;
  Json root_;
};

inline constexpr std::size_t longest_name_bytes = 64;
[[nodiscard]] bool is_printable(std::string_view text);  ///< without control characters
[[nodiscard]] bool is_short_and_printable(std::string_view name);

}  // namespace comigs::data
