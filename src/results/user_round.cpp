#include "comigs/results/user_round.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "columns.hpp"
#include "comigs/base/error.hpp"

namespace comigs::results {
namespace {

// Both go through the table: one appends to a block, the other takes from it.
class Writer {
 public:
  void number(double value) { block.push_back(value); }
  void number(std::int64_t value) { block.push_back(static_cast<double>(value)); }
  template <class Value>
  void list(const std::vector<Value>& values, std::size_t most) {
    if (values.size() > most) {
      throw std::invalid_argument(
          fmt::format("a round's record has {} values where {} fit", values.size(), most));
    }
    block.push_back(static_cast<double>(values.size()));
    block.insert(block.end(), values.begin(), values.end());
    block.resize(block.size() + most - values.size(), 0.0);
  }
  std::vector<double> block;
};

class Reader {
 public:
  explicit Reader(std::span<const double> block) : rest_(block) {}
  void number(double& value) { value = take(); }
  void number(std::int64_t& value) { value = whole(take()); }
  template <class Value>
  void list(std::vector<Value>& values, std::size_t most) {
    const auto count = static_cast<std::size_t>(whole(take()));
    if (count > most) {
      throw std::invalid_argument(
          fmt::format("a round's block holds a list of {} where {} fit", count, most));
    }
    values.clear();
    for (std::size_t i = 0; i < count; ++i) {
      values.push_back(static_cast<Value>(rest_[i]));
    }
    rest_ = rest_.subspan(most);
  }

 private:
  double take() {
    const double value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  static std::int64_t whole(double value) {
    constexpr double exact_limit = 9007199254740992.0;  // 2^53
    if (std::isnan(value) || value < 0.0 || value > exact_limit || value != std::floor(value)) {
      throw std::invalid_argument(fmt::format("a round's block holds {} where a count was expected", value));
    }
    return static_cast<std::int64_t>(value);
  }
  std::span<const double> rest_;
};

template <class Archive>
void through(Archive& archive, Evaluation& evaluation, std::size_t /*most*/) {
  archive.number(evaluation.loss_sum);
  archive.number(evaluation.tokens);
}
template <class Archive, class Value>
void through(Archive& archive, std::vector<Value>& values, std::size_t most) {
  archive.list(values, most);
}
template <class Archive, class Number>
void through(Archive& archive, Number& value, std::size_t /*most*/) {
  archive.number(value);
}

template <class Archive>
void record(Archive& archive, UserRound& round, const RoundShape& shape) {
  archive.number(round.round);
  for (const Column& column : columns(shape)) {
    const std::uint64_t most = product(extent_of(column.dimensions, shape));
    std::visit([&](auto* value) { through(archive, *value, most); }, column.place(round));
  }
}

}  // namespace

std::size_t block_length(const RoundShape& shape) { return encode(UserRound{}, shape).size(); }

std::vector<double> encode(const UserRound& round, const RoundShape& shape) {
  Writer writer;
  UserRound copy = round;
  record(writer, copy, shape);
  return std::move(writer.block);
}

UserRound decode(std::span<const double> block, const RoundShape& shape) {
  if (block.size() != block_length(shape)) {
    throw std::invalid_argument(
        fmt::format("a round's block has {} numbers; {} were expected", block.size(), block_length(shape)));
  }
  Reader reader(block);
  UserRound round;
  record(reader, round, shape);
  return round;
}

}  // namespace comigs::results
