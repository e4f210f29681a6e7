// What `comigs evaluate` is told: which models, on which texts.
#pragma once

#include "comigs/config/model_choice.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace comigs::config {

enum class Split { train, validation, test };

struct Evaluate {
  ModelChoice models;
  std::string data;  ///< data-set folder; empty: as the run recorded it
  Split split = Split::test;
  std::int64_t tokens = 0;                 ///< leading tokens of the split; 0: as the run evaluates it
  std::int64_t context_tokens = 0;         ///< of a window; 0: as each user's in the run
  std::int64_t micro_batch_sequences = 0;  ///< run at a time; 0: as the run evaluates
  bool json = false;
};

/// Options of `comigs evaluate`, all from the command line; the word without a name is the run. `arguments`
/// are those after the sub-command's name. Throws ConfigError with all problems.
[[nodiscard]] Evaluate parse_evaluate(const std::vector<std::string>& arguments);

/// What `comigs evaluate --help` prints.
[[nodiscard]] std::string evaluate_help();

}  // namespace comigs::config
