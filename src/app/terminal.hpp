// What a run prints on standard output: what will run, a line a round, the final table.
#pragma once

#include <string>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/results/user_round.hpp"

namespace comigs::app {

/// A table with a line under its head, columns as wide as their longest cell; the first column is flush left,
/// the others flush right.
[[nodiscard]] std::string format_table(const std::vector<std::string>& head,
                                       const std::vector<std::vector<std::string>>& rows);

/// 1234567 -> "1,234,567".
[[nodiscard]] std::string group_digits(std::int64_t number);
/// Two digits after the point below 1,000, none above; "-" if not evaluated.
[[nodiscard]] std::string format_perplexity(const Evaluation& evaluation);

/// The head over the rounds' lines, and one line: perplexities by user (train/validation/test), or their
/// means, lowest and highest where there are too many users for one line.
[[nodiscard]] std::string round_head(const std::vector<results::UserDescription>& users);
[[nodiscard]] std::string round_line(std::int64_t round, std::int64_t rounds,
                                     const std::vector<results::UserRound>& rows,
                                     std::int64_t trained_tokens);

/// The final table: every user's perplexities at the start and at the end.
[[nodiscard]] std::string summary(const std::vector<results::UserDescription>& users,
                                  const std::vector<results::UserRound>& start,
                                  const std::vector<results::UserRound>& end);

}  // namespace comigs::app
