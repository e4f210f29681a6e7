// What a call of `comigs prune` takes and leaves: its calibration text, and the folder that it writes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "comigs/config/prune.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/model/architecture.hpp"
#include "comigs/model/pruning_record.hpp"

namespace comigs::finished {

/// Whether a folder is a base model with a record of its pruning.
[[nodiscard]] bool is_pruned_base(const std::filesystem::path& folder);

/// Throws ConfigError where --output cannot be, or holds a model already, or anything else that would be
/// written over; with `replace`, where a pruned base there has links or folders among its files. Changes
/// nothing.
void check_pruned_output(const std::string& output, bool replace);

/// The windows that are calibrated on, from the train split of the data set's base corpus, which no user
/// holds: where they begin depends on the seed alone. Throws DataError where there is no such corpus, or one
/// too short for a window.
[[nodiscard]] data::Batch calibration_batch(const config::Prune& options, const data::Manifest& manifest,
                                            std::int64_t context_tokens);

/// SHA-256 of its tokens, [sequences, context] int64.
[[nodiscard]] std::string digest_of(const data::Batch& calibration);

/// A base model with other matrices.
struct PrunedBase {
  std::filesystem::path base;  ///< the dense one's folder
  model::Architecture architecture;
  std::map<std::string, at::Tensor> matrices;  ///< by name, as they lie in files
  model::PruningRecord record;  ///< all but the digest of the weights and the zeros, which writing settles
};

/// Writes a Hugging Face folder: the matrices, all other weights and config.json as they are, the tokeniser
/// and what else belongs to the model, and comigs-pruning.json. config.json, by which it is a model, comes
/// last. Holds the folder meanwhile. `replace`: it takes the place of a pruned base that is there, once
/// all of it is written. Throws ConfigError, IoError.
void write_pruned_base(const std::string& output, PrunedBase& pruned, bool replace = false);

}  // namespace comigs::finished
