// From what stands in a job file and on a command line to settings of known options.
#include "schema.hpp"
#include "sources.hpp"

#include "comigs/base/error.hpp"
#include "comigs/base/system_reason.hpp"
#include "comigs/config/nearest.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>

namespace comigs::config {
namespace {

constexpr std::size_t largest_job_file_bytes = 1 << 20;
constexpr std::string_view file_section = "job";  // speaks of the file itself, so it is in no option table

/// The user that a section speaks of; none: it is not a section for users.
std::optional<std::int64_t> user_of(const Schema& schema, std::string_view section) {
  if (schema.per_user.empty() || !section.starts_with(schema.per_user)) return std::nullopt;
  section.remove_prefix(schema.per_user.size());
  if (section.empty()) return all_users;
  std::int64_t user = -1;
  if (section.front() != '.' || !read(section.substr(1), user) || user < 0) return std::nullopt;
  return user;
}

bool is_section(const Schema& schema, std::string_view section) {
  return std::find(schema.sections.begin(), schema.sections.end(), section) != schema.sections.end() ||
         user_of(schema, section).has_value();
}

std::optional<std::size_t> find_option(const Schema& schema, std::string_view section,
                                       std::string_view name) {
  const std::string_view table_section = user_of(schema, section) ? schema.per_user : section;
  for (std::size_t i = 0; i < schema.options.size(); ++i) {
    if (schema.options[i].section == table_section && schema.options[i].name == name) return i;
  }
  return std::nullopt;
}

std::string did_you_mean(const std::string& what) {
  return what.empty() ? "" : fmt::format("; did you mean {}?", what);
}

/// The option that an unknown name in a section of an INI file may have meant: its own section's first, then
/// any.
std::string meant_option(const Schema& schema, std::string_view section, std::string_view name) {
  const std::string_view table_section = user_of(schema, section) ? schema.per_user : section;
  std::vector<std::string_view> here, anywhere;
  for (const OptionInfo& option : schema.options) {
    if (option.name == name || option.flag() == name)
      return fmt::format("'{}' in [{}]", option.name, option.section);
    anywhere.push_back(option.name);
    if (option.section == table_section) here.push_back(option.name);
  }
  if (const auto best = nearest(name, here)) return fmt::format("'{}'", here[*best]);
  const auto best = nearest(name, anywhere);
  return best ? fmt::format("'{}' in [{}]", anywhere[*best], schema.options[*best].section) : "";
}

std::string meant_section(const Schema& schema, std::string_view section) {
  const auto best = nearest(section, schema.sections);
  return best ? fmt::format("[{}]", schema.sections[*best]) : "";
}

/// The flag that an unknown --name may have meant; of --user.2.name only the last part, unless no user has
/// its own.
std::string meant_flag(const Schema& schema, std::string_view name) {
  const std::size_t dot = name.rfind('.');
  const std::string_view section = dot == name.npos ? std::string_view{} : name.substr(0, dot),
                         last = dot == name.npos ? name : name.substr(dot + 1);
  const std::string_view prefix = user_of(schema, section) ? name.substr(0, dot + 1) : std::string_view{};
  std::vector<std::string> flags;
  for (const OptionInfo& option : schema.options) {
    if (option.flag() == last && !schema.by_user(option)) return fmt::format("'--{}'", last);
    if (prefix.empty() || schema.by_user(option)) flags.push_back(option.flag());
  }
  const auto best = nearest(last, {flags.begin(), flags.end()});
  return best ? fmt::format("'--{}{}'", printable(prefix), flags[*best]) : "";
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  for (std::size_t comma = 0; comma != list.npos;) {
    comma = list.find(',');
    std::string_view part = list.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    parts.emplace_back(part);
    if (comma != list.npos) list.remove_prefix(comma + 1);
  }
  return parts;
}

/// One source (a file, or a command line) on its way into the layers.
class Source {
 public:
  explicit Source(const Schema& schema) : schema_(schema) {}

  void add(std::size_t index, std::int64_t user, const std::string& value, const std::string& origin) {
    const OptionInfo& option = schema_.options[index];
    if (!seen_.insert({index, user}).second)
      return problem("{}: given more than once, expected once", origin);
    Setting setting{.option = index, .user = user, .values = {value}, .origin = origin};
    if (schema_.by_user(option) && user == all_users) setting.values = split(value);
    for (const std::string& part : setting.values) {
      if (option.accepts(part, option.range)) continue;
      const std::string place = setting.values.size() > 1 ? fmt::format(" in '{}'", printable(value)) : "";
      return problem("{}: found '{}'{}, expected {}", origin, printable(part), place, option.expected());
    }
    settings_.push_back(std::move(setting));
  }

  template <class... Values>
  void problem(fmt::format_string<Values...> format, Values&&... values) {
    problems_.push_back(fmt::format(format, std::forward<Values>(values)...));
  }

  /// Puts this source above those that are there: what is said of one user goes above what is said of all.
  void move_to(Layered& layered) {
    std::stable_partition(settings_.begin(), settings_.end(),
                          [](const Setting& s) { return s.user == all_users; });
    std::move(settings_.begin(), settings_.end(), std::back_inserter(layered.settings));
    std::move(problems_.begin(), problems_.end(), std::back_inserter(layered.problems));
  }

 private:
  const Schema& schema_;
  std::set<std::pair<std::size_t, std::int64_t>> seen_;
  std::vector<Setting> settings_;
  std::vector<std::string> problems_;
};

void add_line(Source& source, const Schema& schema, const std::string& file, const IniLine& line) {
  const std::string place = fmt::format("{}:{}", file, line.number);
  const std::string section = printable(line.section), name = printable(line.name);
  if (line.section == file_section) {
    if (line.header || line.name == "inherit") return;  // read before
    return source.problem("{}: unknown option '{}' in [job], which knows 'inherit'", place, name);
  }
  if (line.header) {
    if (is_section(schema, line.section)) return;
    return source.problem("{}: unknown section [{}]{}", place, section,
                          did_you_mean(meant_section(schema, line.section)));
  }
  if (const auto option = find_option(schema, line.section, line.name)) {
    const std::int64_t user = user_of(schema, line.section).value_or(all_users);
    return source.add(*option, user, line.value, fmt::format("{}: [{}] {}", place, section, name));
  }
  const std::string meant = did_you_mean(meant_option(schema, line.section, line.name));
  if (line.section.empty())
    return source.problem("{}: option '{}' before any [section]{}", place, name, meant);
  // The header of an unknown section has been reported; its options need not be.
  if (is_section(schema, line.section)) {
    source.problem("{}: unknown option '{}' in [{}]{}", place, name, section, meant);
  }
}

void add_argument(Source& source, const Schema& schema, const Argument& argument) {
  const std::string origin = "--" + printable(argument.name);
  const std::size_t dot = argument.name.rfind('.');
  if (dot != std::string::npos) {
    const std::string section = argument.name.substr(0, dot);
    const auto user = user_of(schema, section);
    const auto option = find_option(schema, section, respelled(argument.name.substr(dot + 1), '-', '_'));
    if (user && option) return source.add(*option, *user, argument.value, origin);
  } else {
    for (std::size_t i = 0; i < schema.options.size(); ++i) {
      if (schema.options[i].flag() == argument.name) return source.add(i, all_users, argument.value, origin);
    }
  }
  source.problem("unknown option '{}'{}", origin, did_you_mean(meant_flag(schema, argument.name)));
}

/// Returns the word without a name; empty: none is given.
std::string add_arguments(Source& source, const Schema& schema, const std::vector<std::string>& words) {
  std::string positional;
  bool after_unknown = false;  // a word that follows an unknown option is likely its value
  for (const Argument& argument : read_arguments(schema, words)) {
    const bool is_value = after_unknown && argument.kind == Argument::Kind::positional;
    after_unknown = argument.kind == Argument::Kind::unknown;
    if (is_value) continue;
    if (argument.kind != Argument::Kind::positional) {
      add_argument(source, schema, argument);
    } else if (argument.value.starts_with('-')) {
      source.problem("unknown option '{}'{}", printable(argument.value),
                     did_you_mean(meant_flag(schema, argument.value.substr(1))));
    } else if (!positional.empty()) {
      source.problem("found two {}s, '{}' and '{}', expected one at most", schema.positional,
                     printable(positional), printable(argument.value));
    } else {
      positional = argument.value;
    }
  }
  return positional;
}

constexpr std::size_t longest_path = 1024;  // in a message

std::string read_job_file(const std::string& file) {
  const auto fail = [&](const std::string& reason) {
    throw ConfigError(
        fmt::format("cannot read the job file '{}': {}", printable(file, longest_path), reason));
  };
  const auto fail_by = [&](int reason) {
    if (is_about_path(reason)) fail(std::strerror(reason));
    throw IoError(fmt::format("cannot read the job file '{}': {}", printable(file, longest_path),
                              std::strerror(reason)));
  };
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(file, error);
  if (std::filesystem::is_directory(status)) fail("it is a folder");
  // A pipe that nobody writes to would be waited for.
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    fail("it is not a regular file");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) fail_by(errno);
  std::string text(largest_job_file_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) fail_by(errno);
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > largest_job_file_bytes) fail("it is larger than 1 MiB, so no job file");
  return text;
}

/// The file that [job] inherit names, seen from the folder of the file that names it; empty: none.
std::string parent_of(const std::vector<IniLine>& lines, const std::string& file) {
  std::string parent;
  for (const IniLine& line : lines) {
    if (line.header || line.section != file_section || line.name != "inherit") continue;
    const std::string place = fmt::format("{}:{}: [job] inherit", file, line.number);
    if (!parent.empty()) throw ConfigError(fmt::format("{}: given more than once, expected once", place));
    if (line.value.empty()) throw ConfigError(fmt::format("{}: found nothing, expected a job file", place));
    parent = (std::filesystem::path(file).parent_path() / line.value).lexically_normal().string();
  }
  return parent;
}

std::string read_parent(const std::string& parent, const std::string& file) {
  try {
    return read_job_file(parent);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: [job] inherit: {}", file, error.what()));
  }
}

/// The settings of a job's text on top of those of the file that it inherits. `heirs`: the files on the way
/// here.
Layered read_job(const Schema& schema, std::string_view ini, const std::string& file,
                 std::vector<std::string> heirs) {
  const std::vector<IniLine> lines = read_ini(ini, file);
  const std::string parent = parent_of(lines, file);
  heirs.push_back(std::filesystem::path(file).lexically_normal().string());
  if (std::find(heirs.begin(), heirs.end(), parent) != heirs.end())
    throw ConfigError(
        fmt::format("{}: [job] inherit: '{}' inherits itself: {}", file, parent, fmt::join(heirs, ", ")));
  Layered layered;
  if (!parent.empty()) layered = read_job(schema, read_parent(parent, file), parent, heirs);
  layered.job_file = file;
  Source source(schema);
  for (const IniLine& line : lines) add_line(source, schema, file, line);
  source.move_to(layered);
  return layered;
}

}  // namespace

Layered parse_text(const Schema& schema, std::string_view ini, const std::string& name) {
  return read_job(schema, ini, name, {});
}

Layered parse_command_line(const Schema& schema, const std::vector<std::string>& arguments) {
  Source source(schema);
  Layered layered;
  layered.job_file = add_arguments(source, schema, arguments);
  source.move_to(layered);
  return layered;
}

Layered parse(const Schema& schema, const std::vector<std::string>& arguments) {
  Layered command_line = parse_command_line(schema, arguments);
  if (command_line.job_file.empty()) return command_line;
  Layered layered;
  try {
    layered = parse_text(schema, read_job_file(command_line.job_file), command_line.job_file);
  } catch (const ConfigError& error) {
    command_line.problems.insert(command_line.problems.begin(), error.what());
    throw_if_any(command_line.problems);  // without the file, the rest would be reported as missing
  }
  std::move(command_line.settings.begin(), command_line.settings.end(), std::back_inserter(layered.settings));
  std::move(command_line.problems.begin(), command_line.problems.end(), std::back_inserter(layered.problems));
  return layered;
}

Layered parse(const std::vector<std::string>& arguments) { return parse(Schema(job_table()), arguments); }

Layered parse_text(std::string_view ini, const std::string& name) {
  return parse_text(Schema(job_table()), ini, name);
}

Layered parse_recorded(std::string_view ini, const std::string& name) {
  for (const IniLine& line : read_ini(ini, name))
    if (line.section == file_section)
      throw ConfigError(fmt::format("{}:{}: found [{}], expected a configuration that inherits nothing", name,
                                    line.number, file_section));
  Layered layered = parse_text(ini, name);
  layered.is_recorded = true;
  return layered;
}

bool wants_help(const std::vector<std::string>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [](const std::string& word) { return word == "--help" || word == "-h"; });
}

}  // namespace comigs::config
