#include "comigs/data/batch.hpp"

#include <algorithm>

namespace comigs::data {

namespace {

Batch empty_batch(std::int64_t sequences, std::int64_t context) {
  const auto positions = static_cast<std::size_t>(sequences * context);
  return {.sequences = sequences,
          .context = context,
          .tokens = std::vector<std::int64_t>(positions, 0),
          .targets = std::vector<std::int64_t>(positions, no_target),
          .predicted = 0};
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

}  // namespace

Batch sample_batch(std::span<const TokenShard> shards, std::int64_t sequences, std::int64_t context,
                   const StreamKey& key, std::int64_t first) {
  Batch batch = empty_batch(sequences, context);
  std::int64_t starts = 0;
  for (const TokenShard& shard : shards) starts += shard.size() - context;
  RandomStream stream(key);
  for (std::int64_t row = -first; row < sequences; ++row) {
    auto begin = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(starts)));
    if (row < 0) continue;
    auto shard = shards.begin();
    for (; begin >= shard->size() - context; ++shard) begin -= shard->size() - context;
    fill_row(batch, row, *shard, begin, context);
  }
  return batch;
}

std::int64_t evaluation_windows(std::int64_t tokens, std::int64_t context) {
  return tokens < 2 ? 0 : (tokens - 1 + context - 1) / context;
}

Batch evaluation_batch(const TokenShard& shard, std::int64_t tokens, std::int64_t context, std::int64_t first,
                       std::int64_t sequences) {
  Batch batch = empty_batch(sequences, context);
  for (std::int64_t row = 0; row < sequences; ++row) {
    const std::int64_t begin = (first + row) * context;
    fill_row(batch, row, shard, begin, std::min(context, tokens - 1 - begin));
  }
  return batch;
}

Batch slice(const Batch& batch, std::int64_t begin, std::int64_t sequences) {
  Batch part = empty_batch(sequences, batch.context);
  const auto offset = begin * batch.context, count = sequences * batch.context;
  std::copy_n(batch.tokens.begin() + offset, count, part.tokens.begin());
  std::copy_n(batch.targets.begin() + offset, count, part.targets.begin());
  part.predicted =
      std::count_if(part.targets.begin(), part.targets.end(), [](std::int64_t t) { return t != no_target; });
  return part;
}

}  // namespace comigs::data
