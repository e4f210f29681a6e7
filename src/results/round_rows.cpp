#include "round_rows.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <string>

#include "columns.hpp"
#include "layout.hpp"

namespace comigs::results {
namespace {

using io::hdf5::Group;
using Extent = std::vector<std::uint64_t>;

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

// The numbers of a round, all NaN at first, by the path of the array that shows them.
class Row {
 public:
  explicit Row(const std::vector<RowPart>& parts)
      : values_(parts.back().first + parts.back().count, missing) {
    for (const RowPart& part : parts) places_[part.path] = std::span(values_).subspan(part.first, part.count);
  }
  [[nodiscard]] std::span<double> at(const std::string& path) const { return places_.at(path); }
  [[nodiscard]] std::span<const double> values() const { return values_; }

 private:
  std::vector<double> values_;
  std::map<std::string, std::span<double>> places_;
};

// What a user's record has of an array.
std::vector<double> numbers(const Shown& shown, const Evaluation& evaluation) {
  return {shown.of(evaluation)};
}
std::vector<double> numbers(const Shown& /*shown*/, double value) { return {value}; }
std::vector<double> numbers(const Shown& /*shown*/, std::int64_t value) {
  return {static_cast<double>(value)};
}
template <class Value>
std::vector<double> numbers(const Shown& /*shown*/, const std::vector<Value>& values) {
  return {values.begin(), values.end()};
}

std::vector<double> numbers(const Column& column, const Shown& shown, const UserRound& round) {
  UserRound copy = round;
  std::vector<double> found =
      std::visit([&](const auto* place) { return numbers(shown, *place); }, column.place(copy));
  // Rows are float64: what an array of float32 shows is rounded here.
  if (shown.type == io::hdf5::Type::float32)
    std::ranges::transform(found, found.begin(), [](double value) { return static_cast<float>(value); });
  return found;
}

// Puts what has the extent `own` into the first places of what has the extent `whole`, along every dimension.
void put(std::span<const double> values, const Extent& own, std::span<double> into, const Extent& whole) {
  for (std::uint64_t i = 0; i < values.size(); ++i) {
    std::uint64_t rest = i, place = 0, stride = 1;
    for (std::size_t d = own.size(); d-- > 0;) {
      place += rest % own[d] * stride;
      rest /= own[d];
      stride *= whole[d];
    }
    into[place] = values[i];
  }
}

// Of what a user lacks, experts or measurements, the row's numbers stay NaN.
void fill(const Row& row, const Column& column, const RunDescription& run, const RoundShape& shape,
          const std::vector<UserRound>& rounds) {
  const Extent whole = extent_of(column.dimensions, shape);
  const std::uint64_t a_user = product(whole);
  for (const Shown& shown : column.arrays)
    for (std::size_t user = 0; user < rounds.size(); ++user)
      put(numbers(column, shown, rounds[user]), user_extent(column, run.users[user], shape),
          row.at(shown.path).subspan(user * a_user, a_user), whole);
}

bool is_measured(const Column& column, UserRound round) {
  const Place place = column.place(round);
  const auto* evaluation = std::get_if<Evaluation*>(&place);
  return evaluation == nullptr || (*evaluation)->tokens > 0;
}

// Arrays that keep the last value there was.
void replace_lasting(const Group& root, const RoundShape& shape, const std::vector<UserRound>& rounds) {
  std::vector<Column> lasting = columns(shape);
  std::erase_if(lasting, [](const Column& column) { return column.each_round; });
  const bool is_there = std::ranges::any_of(lasting, [&](const Column& column) {
    return std::ranges::any_of(rounds, [&](const UserRound& round) { return is_measured(column, round); });
  });
  if (!is_there) return;
  for (const Column& column : lasting) {
    for (const Shown& shown : column.arrays) {
      std::vector<double> values;
      for (const UserRound& round : rounds) values.push_back(numbers(column, shown, round).front());
      root.open_dataset(shown.path).write(values);
    }
  }
  root.open_group("before_aggregation").set_attribute("round", rounds.front().round);
}

}  // namespace

void append_row(const Group& root, const RunDescription& run, const RoundShape& shape,
                const std::vector<UserRound>& rounds) {
  const Row row(row_parts(run, shape));
  row.at("round")[0] = static_cast<double>(rounds.front().round);
  for (const Column& column : columns(shape))
    if (column.each_round) fill(row, column, run, shape, rounds);
  replace_lasting(root, shape, rounds);
  root.open_dataset(rows_path).append_row(row.values());
}

}  // namespace comigs::results
