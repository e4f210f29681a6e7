// What a results.h5 says of the run that wrote it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "comigs/results/user_round.hpp"

namespace comigs::results {

/// What decides whether two runs are the same one. Texts of 0.1 that did not have one yet are empty.
struct RunIdentity {
  std::string configuration;             ///< the resolved one, as text
  std::string data_digest, base_digest;  ///< SHA-256 of the data set's manifest and the base model's weights
  std::string init_adapter_digest;       ///< see adapter::PeftAdapter; empty: users began as drawn
  std::string base_architecture;         ///< what of the base's config.json is used, as JSON
  std::string activations;          ///< the type of what is computed beside the frozen weights: "float32"
  std::string sequences_at_a_time;  ///< of every user's steps, as they fit its memory: "64, 64, 16"
  std::vector<std::string> users;   ///< their names
};

struct RunRecord {
  RunIdentity identity;
  std::vector<std::string>
      history;  ///< from which round on it was computed by what, as `history_entry` has it
  std::int64_t schema_version = 0;  ///< of the file's layout
  std::int64_t rounds = 0;          ///< the last that was written; -1: none yet
  RoundShape shape;
};

/// "from round 3: comigs 0.1.0 (0fe2dbc); LibTorch 2.11.0; ...": program, libraries and machines, which may
/// decide the last bits, joined by "; ".
[[nodiscard]] std::string history_entry(std::int64_t round, const std::vector<std::string>& computed_by);
/// What it was computed by, of such an entry.
[[nodiscard]] std::vector<std::string> computed_by(const std::string& history_entry);

/// Throws DataError where the file cannot be read or is no run's.
[[nodiscard]] RunRecord read_run_record(const std::filesystem::path& path);

}  // namespace comigs::results
