// Which finished models a command runs, and where.
#pragma once

#include "comigs/config/config.hpp"

#include <cstdint>
#include <string>

namespace comigs::config {

struct ModelChoice {
  std::string run;    ///< folder of a finished run, or its results.h5; empty: a base model alone
  std::string model;  ///< Hugging Face folder of the base model; empty: as the run recorded it
  std::string users;  ///< whose models, names joined by commas; empty: every user's
  Precision precision = Precision::float32;  ///< of a base model without a run
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;  ///< compute threads; 0: the cores it may use
};

}  // namespace comigs::config
