// A configuration told: as INI text, by its differences from another one, and as the help text of all that
// can be set.
#pragma once

#include "comigs/config/config.hpp"
#include "comigs/config/parse.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace comigs::config {

/// All options as INI text that parses back to the same Config, in the order of the table. What all users
/// have alike is in [user], the rest in [user.i]. Numbers in the shortest form that reads back exactly.
[[nodiscard]] std::string echo(const Config& config);

/// One option of a configuration, as `echo` has it.
struct OptionValue {
  std::string_view section, name;
  std::string text;
  bool is_of_user = false, is_flag = false, is_number = false;  ///< a flag is "true" or "false"
};

/// All options as one of the users sees them, in the order of the table.
[[nodiscard]] std::vector<OptionValue> values(const Config& config, std::size_t user);

/// What a job says, before any default: names as on the command line but with underscores ("rounds", "data",
/// "user.1.experts") and their texts; of what is said twice the one that counts. Throws ConfigError with all
/// problems of its sources.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> settings(const Layered& layered);

/// Whose configurations are compared.
enum class Between {
  runs,   ///< a run's and its resumption's: all that determines the numbers must be alike
  ranks,  ///< those of ranks of one run: all must be, but where each computes
};

/// In what two configurations differ that should not: "[run] rounds: 20 there, 30 here". The folders of data
/// and base are not among it: what lies in them is, by its digests.
[[nodiscard]] std::vector<std::string> differences(const Config& there, const Config& here,
                                                   Between between = Between::runs);

/// What `comigs train --help` prints: all options by section with defaults and units, 100 columns.
[[nodiscard]] std::string help();
/// What `comigs plan --help` prints.
[[nodiscard]] std::string plan_help();

}  // namespace comigs::config
