// What a results.h5 says of the run that wrote it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "comigs/results/user_round.hpp"

namespace comigs::results {

/// What decides whether two runs are the same one.
struct RunIdentity {
  std::string configuration;             ///< the resolved one, as text
  std::string data_digest, base_digest;  ///< SHA-256 of the data set's manifest and the base model's weights
  std::vector<std::string> users;        ///< their names
};

struct RunRecord {
  RunIdentity identity;
  std::int64_t schema_version = 0;  ///< of the file's layout
  std::int64_t rounds = 0;          ///< the last that was written; -1: none yet
  RoundShape shape;
};

/// Throws DataError where the file cannot be read or is no run's.
[[nodiscard]] RunRecord read_run_record(const std::filesystem::path& path);

}  // namespace comigs::results
