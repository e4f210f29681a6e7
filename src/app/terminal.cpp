#include "terminal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "comigs/base/log.hpp"

namespace comigs::app {

namespace {

constexpr std::size_t most_user_columns = 6;
constexpr std::size_t cell_width = 24;

// Columns of a round's line between its number and its time.
std::size_t body_width(std::size_t users) {
  return users > most_user_columns ? 60 : users * (cell_width + 2);
}

using Pick = std::function<const Evaluation&(const results::UserRound&)>;
const Pick train_split = [](const results::UserRound& row) -> const Evaluation& { return row.after.train; };
const Pick validation_split = [](const results::UserRound& row) -> const Evaluation& {
  return row.after.validation;
};
const Pick test_split = [](const results::UserRound& row) -> const Evaluation& { return row.after.test; };

std::string format_number(double perplexity) {
  if (!std::isfinite(perplexity)) return "-";
  return perplexity < 1000.0 ? fmt::format("{:.2f}", perplexity) : fmt::format("{:.0f}", perplexity);
}

double mean_perplexity(const std::vector<results::UserRound>& rows, const Pick& pick) {
  double sum = 0.0;
  for (const results::UserRound& row : rows) sum += pick(row).perplexity();
  return sum / static_cast<double>(rows.size());
}

std::string cell(const results::UserRound& row) {
  return fmt::format("{} / {} / {}", format_perplexity(row.after.train),
                     format_perplexity(row.after.validation), format_perplexity(row.after.test));
}

std::string spread(const std::vector<results::UserRound>& rows, const Pick& pick) {
  const auto less = [&](const results::UserRound& a, const results::UserRound& b) {
    return pick(a).perplexity() < pick(b).perplexity();
  };
  const auto [low, high] = std::minmax_element(rows.begin(), rows.end(), less);
  return fmt::format("{} ({} to {})", format_number(mean_perplexity(rows, pick)),
                     format_perplexity(pick(*low)), format_perplexity(pick(*high)));
}

// How many columns a text takes on the screen: its code points, which is right for all but rare scripts.
std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string pad_left(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, display_width(text)), ' ') + text;
}

std::string pad_right(const std::string& text, std::size_t width) {
  return text + std::string(width - std::min(width, display_width(text)), ' ');
}

}  // namespace

std::string format_table(const std::vector<std::string>& head,
                         const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (std::size_t column = 0; column < head.size(); ++column) {
    widths.push_back(display_width(head[column]));
    for (const auto& row : rows) widths[column] = std::max(widths[column], display_width(row[column]));
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text = "  " + pad_right(cells[0], widths[0]);
    for (std::size_t column = 1; column < cells.size(); ++column)
      text += "  " + pad_left(cells[column], widths[column]);
    return text + "\n";
  };
  std::string text = line(head);
  std::string rule = "  ";
  for (std::size_t i = 2; i + 1 < display_width(text); ++i) rule += "─";
  text += rule + "\n";
  for (const auto& row : rows) text += line(row);
  return text;
}

std::string group_digits(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string grouped;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-') grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

std::string format_perplexity(const Evaluation& evaluation) { return format_number(evaluation.perplexity()); }

std::string round_head(const std::vector<results::UserDescription>& users) {
  if (users.size() > most_user_columns)
    return "perplexity, mean over users (lowest to highest): train | validation | test\n";
  std::string line = "perplexity: train / validation / test\n" + pad_right("round", 9);
  for (const results::UserDescription& user : users) line += "  " + pad_left(user.name, cell_width);
  return line + pad_left("time", 14) + pad_left("tokens/s", 11) + "\n";
}

std::string round_line(std::int64_t round, std::int64_t rounds, const std::vector<results::UserRound>& rows,
                       std::int64_t trained_tokens) {
  double seconds = 0.0, training = 0.0;
  for (const results::UserRound& row : rows) {
    seconds = std::max(seconds, row.seconds.total);
    training = std::max(training, row.seconds.experts + row.seconds.routers);
  }
  std::string cells;
  if (rows.front().after.test.tokens == 0) {
    cells = pad_right("  not evaluated", body_width(rows.size()));
  } else if (rows.size() > most_user_columns) {
    cells = fmt::format("  {} | {} | {}", spread(rows, train_split), spread(rows, validation_split),
                        spread(rows, test_split));
  } else {
    for (const results::UserRound& row : rows) cells += "  " + pad_left(cell(row), cell_width);
  }
  std::string line =
      pad_right(fmt::format("{:>3}/{}", round, rounds), 9) + cells + pad_left(format_duration(seconds), 14);
  if (trained_tokens > 0)
    line += pad_left(group_digits(std::llround(static_cast<double>(trained_tokens) / training)), 11);
  return line + "\n";
}

std::string summary(const std::vector<results::UserDescription>& users,
                    const std::vector<results::UserRound>& start,
                    const std::vector<results::UserRound>& end) {
  std::vector<std::vector<std::string>> rows;
  for (std::size_t u = 0; u < users.size(); ++u)
    rows.push_back({users[u].name, std::to_string(users[u].experts), format_perplexity(start[u].after.test),
                    format_perplexity(end[u].after.train), format_perplexity(end[u].after.validation),
                    format_perplexity(end[u].after.test), format_perplexity(end[u].before.test),
                    format_bytes(end[u].communication_bytes), format_bytes(end[u].peak_memory_bytes)});
  rows.push_back(
      {"mean over users", "", format_number(mean_perplexity(start, test_split)),
       format_number(mean_perplexity(end, train_split)),
       format_number(mean_perplexity(end, validation_split)), format_number(mean_perplexity(end, test_split)),
       format_number(mean_perplexity(
           end, [](const results::UserRound& row) -> const Evaluation& { return row.before.test; })),
       "", ""});
  return format_table({"perplexity", "experts", "test, base", "train", "validation", "test",
                       "test before last mean", "sent a round", "peak memory"},
                      rows);
}

}  // namespace comigs::app
