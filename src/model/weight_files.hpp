// Which files of a Hugging Face folder hold its weights.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace comigs::model {

struct WeightFiles {
  std::filesystem::path entry;                  ///< model.safetensors, or the index of its shards
  std::vector<std::filesystem::path> files;     ///< itself, or the shards in the order of their names
  std::map<std::string, std::string> promised;  ///< by tensor the shard that is to have it; empty without one
};

/// model.safetensors, or the shards that model.safetensors.index.json names where it is not there. Throws
/// DataError: what is there instead, and what to do; an index that names files outside the folder is refused.
[[nodiscard]] WeightFiles find_weight_files(const std::filesystem::path& folder);

}  // namespace comigs::model
