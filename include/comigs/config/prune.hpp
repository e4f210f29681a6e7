// What `comigs prune` is told: which base model loses which of its weights, by which method.
#pragma once

#include "comigs/config/config.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace comigs::config {

/// By which weights are chosen, and what becomes of the others; see model/pruning.hpp.
enum class PruningMethod { magnitude, wanda, sparsegpt };

/// Which share of the weights becomes zero, wherever they are; nothing: not said.
struct ZeroShare {
  std::optional<double> share;  ///< in [0, 1)
};

/// How many of each run of consecutive inputs of an output become zero.
struct ZeroPattern {
  static constexpr std::int64_t longest = 4096;
  std::int64_t zeros = 0, of = 0;  ///< 0 < zeros < of

  [[nodiscard]] constexpr bool is_said() const { return of > 0; }
};

struct Prune {
  std::string model;   ///< Hugging Face folder of the dense base model
  std::string data;    ///< data-set folder whose manifest has a base corpus, for calibration
  std::string output;  ///< Hugging Face folder to write
  PruningMethod method = PruningMethod::sparsegpt;
  ZeroShare sparsity;  ///< of these two one
  ZeroPattern pattern;
  std::int64_t calibration_sequences = 128;
  std::int64_t context_tokens = 0;           ///< of a sequence; 0: the model's positions, at most 512
  std::uint64_t seed = 0;                    ///< of the places of the sequences
  Precision precision = Precision::float32;  ///< of the weights that calibration text runs through
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;  ///< compute threads; 0: the cores it may use
  bool replace = false;      ///< a base there that was pruned otherwise goes
};

/// Options of `comigs prune`, all from the command line. `arguments` are those after the sub-command's name.
/// Throws ConfigError with all problems.
[[nodiscard]] Prune parse_prune(const std::vector<std::string>& arguments);

/// The longest calibration sequence where --context-tokens is not said.
inline constexpr std::int64_t most_calibration_context = 512;

/// What `comigs prune --help` prints: all options with defaults and units, 100 columns.
[[nodiscard]] std::string prune_help();

}  // namespace comigs::config
