#include "comigs/config/nearest.hpp"

#include <algorithm>
#include <numeric>

namespace comigs::config {

std::size_t edit_distance(std::string_view from, std::string_view to) {
  // Optimal string alignment: three rows of the usual table, as a swap looks two rows back.
  std::vector<std::size_t> before_last(to.size() + 1), last(to.size() + 1), row(to.size() + 1);
  std::iota(last.begin(), last.end(), 0);
  for (std::size_t i = 1; i <= from.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= to.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (from[i - 1] == to[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[to.size()];
}

std::optional<std::size_t> nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  std::size_t allowed = word.size() / 3 + 1;  // beyond a third of its letters it is another word
  if (word.size() > 128) return std::nullopt;
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::size_t distance = edit_distance(word, candidates[i]);
    if (best ? distance < allowed : distance <= allowed) {
      best = i;
      allowed = distance;
    }
  }
  return best;
}

}  // namespace comigs::config
