// What `comigs route` is told: whose models, which texts.
#pragma once

#include "comigs/config/config.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace comigs::config {

struct Route {
  std::string run;            ///< folder of a finished run, or its results.h5
  std::string probes;         ///< file of texts; empty: the beginning of every user's test split
  std::int64_t tokens = 256;  ///< of each test split
  std::string model;          ///< Hugging Face folder of the base model; empty: as recorded
  std::string data;           ///< data-set folder; empty: as recorded
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;  ///< compute threads; 0: the cores it may use
};

/// Options of `comigs route`, all from the command line; the word without a name is the run. `arguments` are
/// those after the sub-command's name. Throws ConfigError with all problems.
[[nodiscard]] Route parse_route(const std::vector<std::string>& arguments);

/// What `comigs route --help` prints: all options with defaults and units, 100 columns.
[[nodiscard]] std::string route_help();

}  // namespace comigs::config
