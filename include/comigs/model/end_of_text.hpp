// Where a model's own texts end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace comigs::model {

/// The tokens that end a text (`eos_token_id`: one, a list or none), by the Hugging Face folder's
/// generation_config.json, else by its config.json; empty: they name none. Throws DataError naming the file
/// and the entry at fault.
[[nodiscard]] std::vector<std::int64_t> end_of_text(const std::filesystem::path& folder);

}  // namespace comigs::model
