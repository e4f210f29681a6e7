// comigs inspect: what a base model, a data set, a run or a checkpoint holds.
#include <fmt/format.h>

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/finished/inspection.hpp"
#include "comigs/io/mapped_file.hpp"
#include "command.hpp"
#include "json_text.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* help =
    "Usage: comigs inspect PATH [--json]\n"
    "\n"
    "Says what PATH holds: a base model (a Hugging Face folder), a data set, a run (its folder or its\n"
    "results.h5, also while the run goes on) or a checkpoint (its folder, or the folder of all of them).\n"
    "Of a run and a checkpoint it shows the configuration, too, as a job file. Reads only.\n"
    "\n"
    "  --json                              one JSON object instead of tables\n";

constexpr std::size_t longest_value = 400;

std::string words(std::string name) {
  std::ranges::replace(name, '_', ' ');
  return name;
}

std::string value_text(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_integer()) return group_digits(value.get<std::int64_t>());
  if (value.is_number()) return fmt::format("{:.2f}", value.get<double>());
  if (value.is_string()) return printable(value.get_ref<const std::string&>(), longest_value);
  std::string list;
  for (const auto& [name, part] : value.items())
    list += fmt::format("{}{}{}", list.empty() ? "" : "; ", value.is_object() ? words(name) + " " : "",
                        value_text(part));
  return list.empty() ? "-" : list;
}

bool is_table(const Json& value) { return value.is_array() && !value.empty() && value.front().is_object(); }

std::string table(const Json& rows) {
  std::vector<std::string> head;
  for (const auto& [name, value] : rows.front().items()) head.push_back(words(name));
  std::vector<std::vector<std::string>> cells;
  for (const Json& row : rows) {
    cells.emplace_back();
    for (const Json& value : row) cells.back().push_back(value_text(value));
  }
  return "\n" + format_table(head, cells);
}

// Single facts, then tables, then the configuration as it is.
std::string as_text(const Json& found) {
  std::string facts, tables;
  for (const auto& [name, value] : found.items()) {
    if (is_table(value))
      tables += table(value);
    else if (name != "configuration")
      facts += fmt::format("  {:<18}{}\n", words(name), value_text(value));
  }
  if (found.contains("configuration")) tables += "\n" + found.at("configuration").get<std::string>();
  return facts + tables;
}

int inspect(std::vector<std::string> arguments) {
  const bool as_json = std::erase(arguments, "--json") > 0;
  for (const std::string& word : arguments)
    if (word.starts_with('-'))
      throw ConfigError(fmt::format("unknown option '{}', expected --json or none", printable(word)));
  if (arguments.size() != 1) throw ConfigError(fmt::format("found {} paths, expected one", arguments.size()));
  const Json found = finished::inspected(arguments.front());
  io::check_mapped_files();
  print_out(as_json ? json_text(found) : as_text(found));
  return static_cast<int>(ExitCode::done);
}

}  // namespace

int inspect(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(help);
    return 0;
  }
  return run_alone("inspect", [&] { return inspect(arguments); });
}

}  // namespace comigs::app
