#include "comigs/results/user_round.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "comigs/base/error.hpp"

namespace comigs::results {
namespace {

// One description of the record serves both directions: `Archive` either appends to a block or takes from it.
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
    if (!(value >= 0.0 && value <= exact_limit) || value != std::floor(value)) {
      throw std::invalid_argument(fmt::format("a round's block holds {} where a count was expected", value));
    }
    return static_cast<std::int64_t>(value);
  }
  std::span<const double> rest_;
};

template <class Archive, class Splits>
void splits(Archive& archive, Splits& evaluations) {
  for (auto* evaluation : {&evaluations.train, &evaluations.validation, &evaluations.test}) {
    archive.number(evaluation->loss_sum);
    archive.number(evaluation->tokens);
  }
}

template <class Archive, class Round>
void record(Archive& archive, Round& round, const RoundShape& shape) {
  const auto layers = static_cast<std::size_t>(shape.layers);
  const auto experts = static_cast<std::size_t>(shape.experts);
  archive.number(round.round);
  splits(archive, round.after);
  splits(archive, round.before);
  archive.list(round.routing.score, layers * experts);
  archive.list(round.routing.load, layers * experts);
  archive.list(round.routing.entropy, layers);
  archive.list(round.update_norm, layers * experts * 2);
  archive.list(round.aggregation_weight, static_cast<std::size_t>(shape.users));
  for (auto* seconds :
       {&round.seconds.experts, &round.seconds.routers, &round.seconds.aggregation, &round.seconds.evaluation,
        &round.seconds.checkpoint, &round.seconds.writing, &round.seconds.total}) {
    archive.number(*seconds);
  }
  archive.number(round.participation);
  archive.number(round.lora_rank);
  archive.number(round.communication_bytes);
  archive.number(round.peak_memory_bytes);
}

}  // namespace

std::size_t block_length(const RoundShape& shape) { return encode(UserRound{}, shape).size(); }

std::vector<double> encode(const UserRound& round, const RoundShape& shape) {
  Writer writer;
  record(writer, round, shape);
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
