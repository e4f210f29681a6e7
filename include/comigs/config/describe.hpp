// A configuration told: as INI text, by its differences from another one, and as the help text of all that
// can be set.
#pragma once

#include "comigs/config/config.hpp"

#include <string>
#include <vector>

namespace comigs::config {

/// All options as INI text that parses back to the same Config, in the order of the table. What all users
/// have alike is in [user], the rest in [user.i]. Numbers in the shortest form that reads back exactly.
[[nodiscard]] std::string echo(const Config& config);

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
