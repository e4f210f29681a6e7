// Where an interrupted `comigs pretrain` stands.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace comigs::run {

/// One file beside the weights to be. All ranks hold the same numbers, so that one of them writes and reads
/// it.
class PretrainCheckpoint {
 public:
  using Blocks =
      std::vector<std::pair<std::string, at::Tensor>>;  ///< float32, one-dimensional, on any device
  struct Position {
    std::int64_t steps = 0;  ///< done
    double loss = 0.0;       ///< of the last of them
  };

  /// `recipe`: a digest of what decides the numbers; with another one the file is not used.
  PretrainCheckpoint(const std::filesystem::path& folder, std::string recipe);

  [[nodiscard]] static std::filesystem::path path_in(const std::filesystem::path& folder);
  [[nodiscard]] bool exists() const;
  /// Atomically. Throws IoError.
  void write(const Position& position, const Blocks& blocks) const;
  /// Fills the blocks. Throws DataError where the file is damaged or of another recipe.
  [[nodiscard]] Position read(const Blocks& blocks) const;
  void remove() const;

 private:
  std::filesystem::path path_;
  std::string recipe_;
};

}  // namespace comigs::run
