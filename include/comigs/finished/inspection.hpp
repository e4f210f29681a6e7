// What lies under a name: facts of a base model, a data set, a run or a checkpoint.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace comigs::finished {

/// An object whose `kind` says which; lists of objects are tables (docs/programs.md). Throws DataError where
/// nothing of these lies there, or what does is damaged.
[[nodiscard]] nlohmann::ordered_json inspected(const std::filesystem::path& path);

}  // namespace comigs::finished
