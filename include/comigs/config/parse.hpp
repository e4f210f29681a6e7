// What a job file and a command line say, before it is known for how many users.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace comigs::config {

inline constexpr std::int64_t all_users = -1;

/// One value given to one option.
struct Setting {
  std::size_t option = 0;         ///< row of the option table
  std::int64_t user = all_users;  ///< i of [user.i]
  std::vector<std::string>
      values;          ///< one for all, or one a user (`experts = 4,2,2,2`); each readable and in range
  std::string origin;  ///< for messages: "jobs/x.ini:12: [user] experts", "--experts"
};

/// Settings by rising precedence: the job file's, then the command line's; within each those for all users,
/// then [user.i]. So `--experts 2` beats the file's [user.0] experts. A file that inherits another ([job]
/// inherit, relative to the file itself) has that one's settings below its own.
struct Layered {
  std::string job_file;  ///< empty: none
  std::vector<Setting> settings;
  std::vector<std::string>
      problems;              ///< all of both sources; `resolve` throws them with what it finds itself
  bool is_recorded = false;  ///< what a run wrote down: every option is there, chosen or not
};

/// Reads the arguments after the sub-command's name, and the job file if one of them names it (relative
/// folders in it are relative to the working directory, not to the file). Names may be written with dashes or
/// underscores. Throws ConfigError where reading cannot go on: no such file, a line that is no INI, an option
/// without its value.
[[nodiscard]] Layered parse(const std::vector<std::string>& arguments);

/// The same for INI text in memory; `name` stands for the file in messages.
[[nodiscard]] Layered parse_text(std::string_view ini, const std::string& name);

/// The same for the configuration that a run recorded. It is complete: one that inherits a file is refused,
/// as results from elsewhere must not make us read other files.
[[nodiscard]] Layered parse_recorded(std::string_view ini, const std::string& name);

/// Whether --help or -h is among the arguments. To be asked before `parse`, which knows neither.
[[nodiscard]] bool wants_help(const std::vector<std::string>& arguments);

}  // namespace comigs::config
