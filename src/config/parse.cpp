// The only file that sees Boost.Program_options.
#include "sources.hpp"

#include "comigs/base/error.hpp"

#include <fmt/format.h>
#include <boost/program_options.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>
#include <string_view>

namespace comigs::config {
namespace {

namespace po = boost::program_options;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\v\f";
  const std::size_t first = text.find_first_not_of(blanks);
  return first == text.npos ? std::string_view{}
                            : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

/// The line without its comment and outer blanks. A '#' inside a word is refused: Program_options would cut
/// the word there.
std::string_view without_comment(std::string_view line, const std::string& place) {
  line = trimmed(line);
  if (line.starts_with(';')) return {};
  const std::size_t hash = line.find('#');
  if (hash != line.npos && hash > 0 && line[hash - 1] != ' ' && line[hash - 1] != '\t') {
    throw ConfigError(
        fmt::format("{}: found '#' inside a value, expected a blank before it: '#' begins a comment", place));
  }
  return trimmed(line.substr(0, hash));
}

/// The section that the line opens; empty: none. A last '.' is refused, as Program_options adds one only
/// where there is none.
std::string header_of(std::string_view line) {
  if (line.front() != '[' || line.back() != ']') return {};
  const std::string_view section = trimmed(line.substr(1, line.size() - 2));
  return section.ends_with('.') ? std::string{} : std::string(section);
}

/// Headers and options with their line numbers, which Program_options does not tell; `clean` gets what it is
/// to parse.
std::vector<IniLine> scan(std::string_view text, const std::string& file, std::string& clean) {
  std::vector<IniLine> lines;
  std::string section;
  for (int number = 1; !text.empty(); ++number) {
    const std::string_view raw = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(raw.size() + 1, text.size()));
    const std::string place = fmt::format("{}:{}", file, number);
    const std::string_view line = without_comment(raw, place);
    if (line.empty()) continue;
    const std::string header = header_of(line);
    if (header.empty() && (line.front() == '[' || line.find('=') == line.npos)) {
      throw ConfigError(
          fmt::format("{}: found '{}', expected [section] or name = value", place, printable(line)));
    }
    if (!header.empty()) section = header;
    lines.push_back(
        {.number = number, .header = !header.empty(), .section = section, .name = {}, .value = {}});
    clean += header.empty() ? fmt::format("{}\n", line) : fmt::format("[{}]\n", header);
  }
  return lines;
}

po::options_description describe(const Schema& schema) {
  po::options_description description;
  for (const OptionInfo& option : schema.options) {
    description.add_options()(option.flag().c_str(), po::value<std::string>());
  }
  if (!schema.per_user.empty()) {
    description.add_options()(fmt::format("{}.*", schema.per_user).c_str(), po::value<std::string>());
  }
  return description;
}

Argument argument(const po::option& option) {
  const std::string value = option.value.empty() ? "" : option.value.front();
  if (option.position_key >= 0) return {.kind = Argument::Kind::positional, .name = {}, .value = value};
  if (value.starts_with("--")) {
    throw ConfigError(
        fmt::format("--{}: found no value but '{}', expected one", option.string_key, printable(value)));
  }
  const auto kind = option.unregistered ? Argument::Kind::unknown : Argument::Kind::option;
  return {.kind = kind, .name = option.string_key, .value = value};
}

bool is_flag(const Schema& schema, std::string_view word) {
  return std::any_of(schema.options.begin(), schema.options.end(), [&](const OptionInfo& option) {
    return option.is_flag && "--" + option.flag() == word;
  });
}

/// What people write for true and false; no name of a job file.
bool means_truth(std::string_view word) {
  constexpr std::array words = {"true", "false", "yes", "no", "on", "off", "1", "0"};
  return std::any_of(words.begin(), words.end(), [&](std::string_view known) {
    return std::equal(word.begin(), word.end(), known.begin(), known.end(),
                      [](unsigned char a, char b) { return std::tolower(a) == b; });
  });
}

/// Names with dashes; "=true" after a flag without a value, as Program_options would take the job file that
/// follows for it.
void respell(std::vector<std::string>& words, const Schema& schema) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string& word = words[i];
    if (!word.starts_with("--")) continue;
    const std::size_t end = std::min(word.find('='), word.size());
    word.replace(0, end, respelled(word.substr(0, end), '_', '-'));
    const std::string next = i + 1 < words.size() ? words[i + 1] : "";
    if (is_flag(schema, word) && !means_truth(next)) word += "=true";
  }
}

}  // namespace

std::vector<IniLine> read_ini(std::string_view text, const std::string& file) {
  std::string clean;
  std::vector<IniLine> lines = scan(text, file, clean);
  std::istringstream stream(clean);
  const auto parsed = po::parse_config_file(stream, po::options_description{}, true);
  auto option = parsed.options.begin();
  for (IniLine& line : lines) {
    if (line.header) continue;
    const std::size_t prefix = line.section.empty() ? 0 : line.section.size() + 1;  // "run."
    line.name = respelled(option->string_key.substr(prefix), '-', '_');
    line.value = option->value.front();
    ++option;
  }
  return lines;
}

std::vector<Argument> read_arguments(const Schema& schema, std::vector<std::string> arguments) {
  respell(arguments, schema);
  // No abbreviations: a job that works today must not change its meaning with the next option.
  constexpr int style = po::command_line_style::allow_long | po::command_line_style::long_allow_adjacent |
                        po::command_line_style::long_allow_next;
  const po::options_description description = describe(schema);
  try {
    const auto parsed =
        po::command_line_parser(arguments).options(description).style(style).allow_unregistered().run();
    std::vector<Argument> result;
    for (const po::option& option : parsed.options) result.push_back(argument(option));
    return result;
  } catch (const po::error_with_option_name& error) {
    throw ConfigError(fmt::format("{}: found no value, expected one", error.get_option_name()));
  }
}

}  // namespace comigs::config
