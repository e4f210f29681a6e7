// comigs-pruning.json: what a pruned base model's folder says of its zeros.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "comigs/model/architecture.hpp"
#include "comigs/model/sparsity.hpp"

namespace comigs::model {

inline constexpr const char* pruning_file = "comigs-pruning.json";

/// The text that inputs were taken from: windows of it, drawn by a seed.
struct Calibration {
  std::int64_t sequences = 0, context_tokens = 0;
  std::uint64_t seed = 0;
  std::string digest;     ///< SHA-256 of its tokens, [sequences, context_tokens] int64, little-endian
  std::string precision;  ///< of the weights that they ran through: "float32" or "bf16"
};

struct PruningRecord {
  std::string method;  ///< "magnitude", "wanda" or "sparsegpt"
  Sparsity sparsity;
  std::optional<Calibration> calibration;     ///< magnitude has none
  std::string base_digest, weights_digest;    ///< of the dense and of the pruned weights (`weights_digest`)
  std::map<std::string, std::int64_t> zeros;  ///< exact, by matrix, named as in the family's files
  std::string text = {};                      ///< of the file that it was read from

  /// Of all its matrices together, from 0 to 1.
  [[nodiscard]] double share_of_zeros(const Architecture& architecture) const;
};

/// The record as JSON, with a line end.
[[nodiscard]] std::string as_json(const PruningRecord& record);

/// The record in a file. `matrices`: those that it must be of, and how many numbers each has. Throws
/// DataError naming the file, what was found and what was expected where it is no JSON, an entry is missing
/// or cannot be, or its matrices are others.
[[nodiscard]] PruningRecord read_record(const std::filesystem::path& path,
                                        const std::map<std::string, std::int64_t>& matrices);

/// The folder's record, of the model's matrices; nothing where it has none. Throws DataError.
[[nodiscard]] std::optional<PruningRecord> read_pruning(const std::filesystem::path& folder,
                                                        const Architecture& architecture);

/// In what a record differs from one that is to be made: an entry each, as "'method' is ..., expected ...".
/// What comes out of pruning, the digest of the pruned weights and their zeros, is not compared.
[[nodiscard]] std::vector<std::string> differences(const PruningRecord& found, const PruningRecord& expected);

/// Reads all weights. What the folder's record says of them and is not so, the file first: they are others,
/// or have other zeros; empty: nothing.
[[nodiscard]] std::string lie_about_weights(const std::filesystem::path& folder,
                                            const Architecture& architecture, const PruningRecord& record);

/// Throws DataError with what `lie_about_weights` finds.
void check_pruning(const std::filesystem::path& folder, const Architecture& architecture,
                   const PruningRecord& record);

}  // namespace comigs::model
