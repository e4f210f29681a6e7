// What a call of `comigs pretrain` is to make, and how its folder shows whether that is made.
#pragma once

#include <string>
#include <vector>

#include "comigs/config/pretrain.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/train/pretraining.hpp"

namespace comigs::run {

struct PretrainRecipe {
  config::Pretrain plan;
  data::Manifest manifest;
  std::string options;  ///< those that decide the weights, as text
  std::string digest;   ///< of these and of the data
};

/// Local. Checked as far as can be without opening shards. Throws ConfigError, DataError.
[[nodiscard]] PretrainRecipe read_pretrain_recipe(const std::vector<std::string>& arguments);

/// Local. Whether the folder holds what the recipe makes, whole.
[[nodiscard]] bool is_made(const PretrainRecipe& recipe);

/// Local. Before the work, not after it: throws ConfigError for a folder that holds what this call would not
/// have made. A model that is not finished is made anew by the same options.
void claim_folder(const PretrainRecipe& recipe);

/// Local. Writes tokeniser, model and, last, the note that it is made. Throws IoError.
void write_base(const PretrainRecipe& recipe, const train::Pretraining& pretraining);

}  // namespace comigs::run
