// What `comigs generate` is told: which models, which texts they continue, and how.
#pragma once

#include "comigs/config/model_choice.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace comigs::config {

struct Generate {
  ModelChoice models;
  std::string prompts;            ///< file of texts as `python -m data_prep probes` makes it
  std::int64_t tokens = 50;       ///< most that are added to a text
  double temperature = 0.0;       ///< 0: the likeliest token, always
  std::int64_t sample_top_k = 0;  ///< 0: all tokens
  double sample_top_p = 1.0;
  std::uint64_t seed = 0;
  bool with_base = false;  ///< beside a run's users also the base model, before them
  bool json = false;
};

/// Options of `comigs generate`, all from the command line; the word without a name is the run. `arguments`
/// are those after the sub-command's name. Throws ConfigError with all problems.
[[nodiscard]] Generate parse_generate(const std::vector<std::string>& arguments);

/// What `comigs generate --help` prints.
[[nodiscard]] std::string generate_help();

}  // namespace comigs::config
