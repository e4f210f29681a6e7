// Removing what comigs made, and nothing else.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace comigs::io {

/// Whether a file of this name in the folder is one of ours.
using IsOurs = std::function<bool(const std::string& name)>;

/// Whether the folder, which must be none by a link, holds nothing but regular files of ours.
[[nodiscard]] bool holds_only(const std::filesystem::path& folder, const IsOurs& is_ours);

/// Removes the regular files of ours in the folder, and the folder itself once nothing is left in it. Links,
/// folders and files of other names stay; a folder that is a link stays as it is. What cannot be removed
/// stays.
void remove_ours(const std::filesystem::path& folder, const IsOurs& is_ours);

/// Removes a folder that is empty; a link to one stays. Returns whether it is gone.
bool remove_empty(const std::filesystem::path& folder);

}  // namespace comigs::io
