// A config.json, of a model or of what hangs on one, with the messages of what is wrong in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

namespace comigs::model {

/// Keeps references to both. All functions throw DataError naming the file, the entry, what was found and
/// what was expected.
class ConfigFile {
 public:
  ConfigFile(const nlohmann::json& values, const std::filesystem::path& file)
      : values_(values), file_(file) {}

  [[noreturn]] void fail(const char* name, const std::string& found, const std::string& expected) const;

  /// A whole number from 1 to `largest`, which must be there. `alias` is another name for it, which a file
  /// may have instead or as well.
  [[nodiscard]] std::int64_t size(const char* name, const char* alias, std::int64_t largest) const;
  /// The same, or `absent` where it is missing or null.
  [[nodiscard]] std::int64_t size_or(const char* name, std::int64_t absent, std::int64_t largest) const;
  /// A number above `least` and at most `most`, or `absent` where it is missing.
  [[nodiscard]] double number_or(const char* name, double absent, double least, double most) const;
  [[nodiscard]] bool has(const char* name) const { return values_.contains(name); }
  [[nodiscard]] bool flag(const char* name, bool absent) const;

  /// Settings that change what is computed: we know one value of each.
  void insist(const char* name, const nlohmann::json& value) const;
  /// The same where transformers has several names for it.
  void insist_on_one(const char* name, const nlohmann::json& found,
                     std::initializer_list<const char*> known) const;

  /// `absent` also where it is null.
  [[nodiscard]] nlohmann::json value(const char* name, const nlohmann::json& absent) const;
  [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }

 private:
  const nlohmann::json& values_;
  const std::filesystem::path& file_;
};

}  // namespace comigs::model
