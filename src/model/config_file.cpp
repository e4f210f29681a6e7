#include "comigs/model/config_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"

namespace comigs::model {

void ConfigFile::fail(const char* name, const std::string& found, const std::string& expected) const {
  throw DataError(
      fmt::format("{}: '{}' is {}, expected {}", file_.string(), name, printable(found), expected));
}

std::int64_t ConfigFile::size(const char* name, const char* alias, std::int64_t largest) const {
  const char* const given = !values_.contains(name) && values_.contains(alias) ? alias : name;
  const std::string expected = fmt::format("a whole number from 1 to {}", largest);
  const auto entry = values_.find(given);
  if (entry == values_.end()) fail(name, "missing", expected);
  if (!entry->is_number_integer() || entry->get<std::int64_t>() < 1 || entry->get<std::int64_t>() > largest)
    fail(given, entry->dump(), expected);
  insist(alias, *entry);
  return entry->get<std::int64_t>();
}

std::int64_t ConfigFile::size_or(const char* name, std::int64_t absent, std::int64_t largest) const {
  return value(name, nullptr).is_null() ? absent : size(name, name, largest);
}

double ConfigFile::number_or(const char* name, double absent, double least, double most) const {
  const auto entry = values_.find(name);
  if (entry == values_.end()) return absent;
  if (!entry->is_number() || !(entry->get<double>() > least) || entry->get<double>() > most)
    fail(name, entry->dump(), fmt::format("a number above {}, at most {}", least, most));
  return entry->get<double>();
}

bool ConfigFile::flag(const char* name, bool absent) const {
  const auto entry = values_.find(name);
  if (entry == values_.end()) return absent;
  if (!entry->is_boolean()) fail(name, entry->dump(), "true or false");
  return entry->get<bool>();
}

void ConfigFile::insist(const char* name, const nlohmann::json& value) const {
  const auto entry = values_.find(name);
  if (entry != values_.end() && !entry->is_null() && *entry != value) fail(name, entry->dump(), value.dump());
}

void ConfigFile::insist_on_one(const char* name, const nlohmann::json& found,
                               std::initializer_list<const char*> known) const {
  if (std::find(known.begin(), known.end(), found) == known.end())
    fail(name, found.dump(), fmt::format("one of {}", fmt::join(known, ", ")));
}

nlohmann::json ConfigFile::value(const char* name, const nlohmann::json& absent) const {
  const auto entry = values_.find(name);
  return entry == values_.end() || entry->is_null() ? absent : *entry;
}

}  // namespace comigs::model
