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

/// In what two configurations differ that determines the numbers: "[run] rounds: 20 there, 30 here". Ranks of
/// a run, and a run and its resumption, must differ in nothing. Folders are not among it: what lies in them
/// is, by its digests; nor are device and threads.
[[nodiscard]] std::vector<std::string> differences(const Config& there, const Config& here);

/// What `comigs train --help` prints: all options by section with defaults and units, 100 columns.
[[nodiscard]] std::string help();
/// What `comigs plan --help` prints.
[[nodiscard]] std::string plan_help();

}  // namespace comigs::config
