// From token streams, or examples, to the batches that a step or an evaluation takes.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "comigs/base/random.hpp"
#include "comigs/data/token_shard.hpp"

namespace comigs::data {

/// B sequences of T tokens and, for each position, the token that follows. An example is one sequence, its
/// last token a target alone; only tokens of its response are targets, and what follows is padding.
struct Batch {
  std::int64_t sequences = 0;         ///< B
  std::int64_t context = 0;           ///< T
  std::vector<std::int64_t> tokens;   ///< [B, T]
  std::vector<std::int64_t> targets;  ///< [B, T]; `no_target` where nothing is to be predicted
  std::int64_t predicted = 0;         ///< positions with a target
  std::vector<std::int64_t>
      instruction;                     ///< [B] leading tokens that ask for the rest; of a window: all of it
  std::vector<std::int64_t> category;  ///< [B] of the example; of a window: `no_category`
  /// [B] its number among those of all shards that the batch is of, one shard's after the other's; of a
  /// window: `no_example`
  std::vector<std::int64_t> example;
};

inline constexpr std::int64_t no_target = -1;
inline constexpr std::int64_t no_category = -1;
inline constexpr std::int64_t no_example = -1;

/// A process's part of a batch that several make together.
struct Share {
  std::int64_t index = 0, of = 1;
};

/// B windows whose starts are uniform over all places in the shards; no window leaves its shard. Of shards
/// with examples, B examples, uniform over all of them. Sequence b of the batch depends on `key` and b alone.
/// `first` skips sequences, so that ranks can each take a part of one batch. Each shard must hold at least
/// context + 1 tokens; an example, at most so many.
[[nodiscard]] Batch sample_batch(std::span<const TokenShard> shards, std::int64_t sequences,
                                 std::int64_t context, const StreamKey& key, std::int64_t first = 0);

/// How many tokens the first `sequences` of such a batch have as targets.
[[nodiscard]] std::int64_t predicted_tokens(std::span<const TokenShard> shards, std::int64_t sequences,
                                            std::int64_t context, const StreamKey& key);

/// How many windows it takes to predict every token of the shard's first `tokens` but its very first, once
/// each.
[[nodiscard]] std::int64_t evaluation_windows(std::int64_t tokens, std::int64_t context);

/// The sequences that evaluate the first `tokens` of a shard: its windows, or its examples, of a part of
/// which they are estimated by the mean length.
[[nodiscard]] std::int64_t evaluation_sequences(const ShardDescription& shard, std::int64_t tokens,
                                                std::int64_t context);

/// The batches that evaluate a shard: every window of it is in one of them, or every example.
class EvaluationBatches {
 public:
  /// So many `sequences` at a time, and in the last batch what is left. Window w, of at most T = `context`
  /// tokens, reads tokens w T .. w T + T - 1 and predicts the next ones; what is past the end of the last one
  /// is padding without target. Examples come in the order of their lengths, the longest first, and are
  /// padded to the longest of their batch.
  EvaluationBatches(const TokenShard& shard, std::int64_t context, std::int64_t sequences);

  [[nodiscard]] std::int64_t size() const;
  [[nodiscard]] std::int64_t sequences() const { return std::ssize(order_); }  ///< of all batches
  [[nodiscard]] Batch batch(std::int64_t index) const;

 private:
  TokenShard shard_;
  std::int64_t context_, at_a_time_;
  std::vector<std::int64_t> order_;  // [sequence] which window, or example
};

/// Sequences [begin, begin + sequences) of a batch.
[[nodiscard]] Batch slice(const Batch& batch, std::int64_t begin, std::int64_t sequences);

}  // namespace comigs::data
