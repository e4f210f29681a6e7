// What a mistyped word may have meant.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace comigs::config {

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
[[nodiscard]] std::size_t edit_distance(std::string_view from, std::string_view to);

/// Index of the candidate nearest to `word`, the first of equals; none where all are too far to be meant.
[[nodiscard]] std::optional<std::size_t> nearest(std::string_view word,
                                                 const std::vector<std::string_view>& candidates);

}  // namespace comigs::config
