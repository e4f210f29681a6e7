// Texts as tokens, to be run through trained models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "comigs/data/manifest.hpp"

namespace comigs::data {

struct Probe {
  std::string name;   ///< of its group in results.h5
  std::string owner;  ///< the user whose text it is; empty: nobody's
  std::vector<std::int64_t> ids;
  std::vector<std::string> texts;  ///< decoded, one a token; without NUL
  /// Where its parts begin, none of which sees what is before it: examples; any other text is one part.
  std::vector<std::int64_t> begins = {0};
  /// Of each example, the tokens of its instruction; empty: no examples.
  std::vector<std::int64_t> instruction = {};
};

/// What was read from a file, and how many tokens its tokeniser knows.
struct ProbeFile {
  std::int64_t vocabulary = 0;
  std::vector<Probe> probes;
};

/// Reads what `python -m data_prep probes` wrote. Throws DataError naming the file and the entry at fault:
/// names that cannot be a group's, too much text, tokens outside the vocabulary.
[[nodiscard]] ProbeFile read_probes(const std::filesystem::path& file);

/// The first `tokens` tokens of every user's test split (TokenShard::leading), named user_0, user_1, ... as
/// the users' groups are elsewhere in results.h5. Throws DataError.
[[nodiscard]] std::vector<Probe> test_probes(const Manifest& manifest, std::int64_t tokens);

}  // namespace comigs::data
