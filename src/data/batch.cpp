#include "comigs/data/batch.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace comigs::data {

namespace {

Batch empty_batch(std::int64_t sequences, std::int64_t context) {
  const auto positions = static_cast<std::size_t>(sequences * context);
  return {.sequences = sequences,
          .context = context,
          .tokens = std::vector<std::int64_t>(positions, 0),
          .targets = std::vector<std::int64_t>(positions, no_target),
          .predicted = 0,
          .instruction = std::vector<std::int64_t>(static_cast<std::size_t>(sequences), context),
          .category = std::vector<std::int64_t>(static_cast<std::size_t>(sequences), no_category),
          .example = std::vector<std::int64_t>(static_cast<std::size_t>(sequences), no_example)};
}

// Row `row` of the batch: `count` positions from the shard's token `begin` on, and the tokens that follow
// them.
void fill_row(Batch& batch, std::int64_t row, const TokenShard& shard, std::int64_t begin,
              std::int64_t count) {
  const auto offset = static_cast<std::size_t>(row * batch.context);
  shard.read(begin, std::span(batch.tokens).subspan(offset, static_cast<std::size_t>(count)));
  shard.read(begin + 1, std::span(batch.targets).subspan(offset, static_cast<std::size_t>(count)));
  batch.predicted += count;
}

// The shard's example `index`, which the batch calls `number`.
void fill_row_with_example(Batch& batch, std::int64_t row, const TokenShard& shard, std::int64_t index,
                           std::int64_t number) {
  const Example& example = shard.examples()[static_cast<std::size_t>(index)];
  const auto offset = static_cast<std::size_t>(row * batch.context),
             length = static_cast<std::size_t>(example.tokens()),
             instruction = static_cast<std::size_t>(example.instruction);
  shard.read(example.begin, std::span(batch.tokens).subspan(offset, length - 1));
  shard.read(
      example.begin + example.instruction,
      std::span(batch.targets).subspan(offset + instruction - 1, static_cast<std::size_t>(example.response)));
  batch.predicted += example.response;
  batch.instruction[static_cast<std::size_t>(row)] = example.instruction;
  batch.category[static_cast<std::size_t>(row)] = example.category;
  batch.example[static_cast<std::size_t>(row)] = number;
}

// Where a sequence may come from: starts of windows, or examples.
std::int64_t places(const TokenShard& shard, std::int64_t context) {
  return shard.has_examples() ? std::ssize(shard.examples()) : shard.size() - context;
}

// The places of a batch's sequences, one after the other.
class Draws {
 public:
  struct Place {
    const TokenShard& shard;
    std::int64_t index;   // in the shard
    std::int64_t number;  // in all shards
    [[nodiscard]] const Example& example() const { return shard.examples()[static_cast<std::size_t>(index)]; }
  };

  Draws(std::span<const TokenShard> shards, std::int64_t context, const StreamKey& key)
      : shards_(shards), context_(context), stream_(key) {
    for (const TokenShard& shard : shards) places_ += places(shard, context);
  }

  [[nodiscard]] Place next() {
    const auto number = static_cast<std::int64_t>(stream_.below(static_cast<std::uint64_t>(places_)));
    auto shard = shards_.begin();
    std::int64_t index = number;
    for (; index >= places(*shard, context_); ++shard) index -= places(*shard, context_);
    return {.shard = *shard, .index = index, .number = number};
  }

 private:
  std::span<const TokenShard> shards_;
  std::int64_t context_, places_ = 0;
  RandomStream stream_;
};

}  // namespace

Batch sample_batch(std::span<const TokenShard> shards, std::int64_t sequences, std::int64_t context,
                   const StreamKey& key, std::int64_t first) {
  Batch batch = empty_batch(sequences, context);
  Draws draws(shards, context, key);
  for (std::int64_t row = -first; row < sequences; ++row) {
    const Draws::Place place = draws.next();
    if (row < 0) continue;
    if (place.shard.has_examples()) {
      fill_row_with_example(batch, row, place.shard, place.index, place.number);
    } else {
      fill_row(batch, row, place.shard, place.index, context);
    }
  }
  return batch;
}

std::int64_t predicted_tokens(std::span<const TokenShard> shards, std::int64_t sequences,
                              std::int64_t context, const StreamKey& key) {
  Draws draws(shards, context, key);
  std::int64_t predicted = 0;
  for (std::int64_t row = 0; row < sequences; ++row) {
    const Draws::Place place = draws.next();
    predicted += place.shard.has_examples() ? place.example().response : context;
  }
  return predicted;
}

std::int64_t evaluation_windows(std::int64_t tokens, std::int64_t context) {
  return tokens < 2 ? 0 : (tokens - 1 + context - 1) / context;
}

std::int64_t evaluation_sequences(const ShardDescription& shard, std::int64_t tokens, std::int64_t context) {
  if (!shard.examples) return evaluation_windows(tokens, context);
  const auto share = static_cast<double>(tokens) / static_cast<double>(shard.tokens);
  return static_cast<std::int64_t>(std::ceil(share * static_cast<double>(shard.examples->count)));
}

EvaluationBatches::EvaluationBatches(const TokenShard& shard, std::int64_t context, std::int64_t sequences)
    : shard_(shard), context_(context), at_a_time_(sequences) {
  const std::span<const Example> examples = shard.examples();
  order_.resize(shard.has_examples() ? examples.size()
                                     : static_cast<std::size_t>(evaluation_windows(shard.size(), context)));
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  if (!shard.has_examples()) return;
  const auto length = [&](std::int64_t example) {
    return examples[static_cast<std::size_t>(example)].tokens();
  };
  std::ranges::stable_sort(order_, std::ranges::greater(), length);
}

std::int64_t EvaluationBatches::size() const { return (sequences() + at_a_time_ - 1) / at_a_time_; }

Batch EvaluationBatches::batch(std::int64_t index) const {
  const std::int64_t first = index * at_a_time_, count = std::min(at_a_time_, sequences() - first);
  const auto place = [&](std::int64_t row) { return order_[static_cast<std::size_t>(first + row)]; };
  const bool of_examples = shard_.has_examples();
  Batch batch = empty_batch(
      count, of_examples ? shard_.examples()[static_cast<std::size_t>(place(0))].tokens() - 1 : context_);
  for (std::int64_t row = 0; row < count; ++row) {
    if (of_examples) {
      fill_row_with_example(batch, row, shard_, place(row), place(row));
      continue;
    }
    const std::int64_t begin = place(row) * context_;
    fill_row(batch, row, shard_, begin, std::min(context_, shard_.size() - 1 - begin));
  }
  return batch;
}

Batch slice(const Batch& batch, std::int64_t begin, std::int64_t sequences) {
  Batch part = empty_batch(sequences, batch.context);
  const auto offset = begin * batch.context, count = sequences * batch.context;
  std::copy_n(batch.tokens.begin() + offset, count, part.tokens.begin());
  std::copy_n(batch.targets.begin() + offset, count, part.targets.begin());
  std::copy_n(batch.instruction.begin() + begin, sequences, part.instruction.begin());
  std::copy_n(batch.category.begin() + begin, sequences, part.category.begin());
  std::copy_n(batch.example.begin() + begin, sequences, part.example.begin());
  part.predicted =
      std::count_if(part.targets.begin(), part.targets.end(), [](std::int64_t t) { return t != no_target; });
  return part;
}

}  // namespace comigs::data
