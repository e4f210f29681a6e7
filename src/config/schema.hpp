// A table of options without its record: all that parsing needs to know.
#pragma once

#include "comigs/config/option.hpp"
#include "comigs/config/parse.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace comigs::config {

struct Schema {
  std::vector<std::string_view> sections;
  std::vector<OptionInfo> options;
  std::string_view per_user, positional;

  template <class Record>
  explicit Schema(const Table<Record>& table) : per_user(table.per_user), positional(table.positional) {
    for (const Section& section : table.sections) sections.push_back(section.name);
    for (const Option<Record>& option : table.options) options.push_back(option.info);
  }

  [[nodiscard]] bool by_user(const OptionInfo& option) const {
    return !per_user.empty() && option.section == per_user;
  }
};

/// The name with `from` replaced by `to`: a_b and a-b are one name.
[[nodiscard]] inline std::string respelled(std::string_view name, char from, char to) {
  std::string result(name);
  std::replace(result.begin(), result.end(), from, to);
  return result;
}

/// Throws the problems as one ConfigError: a single one on a line of its own, several as a list.
void throw_if_any(const std::vector<std::string>& problems);

/// The command line alone; the word without a name becomes `job_file`, but is not read.
[[nodiscard]] Layered parse_command_line(const Schema& schema, const std::vector<std::string>& arguments);
[[nodiscard]] Layered parse(const Schema& schema, const std::vector<std::string>& arguments);
[[nodiscard]] Layered parse_text(const Schema& schema, std::string_view ini, const std::string& name);

}  // namespace comigs::config
