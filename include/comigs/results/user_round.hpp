// A user's round: what it has to say, how far it has come, and its block of numbers of fixed length, which
// ranks can exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "comigs/base/records.hpp"

namespace comigs::results {

/// Wall-clock of a user's round.
struct PhaseSeconds {
  double experts = 0.0, routers = 0.0, aggregation = 0.0, evaluation = 0.0;
  double checkpoint = std::numeric_limits<double>::quiet_NaN();  ///< NaN: none was written
  double writing = 0.0;  ///< results, from where the row before was whole on
  double total = 0.0;    ///< of the whole round
};

/// Perplexity of a user's model on its three splits.
struct SplitEvaluations {
  Evaluation train, validation, test;
};

/// What one user has to say about one round. Round 0 is the state before any training.
struct UserRound {
  std::int64_t round = 0;
  SplitEvaluations after = {};          ///< after the round's aggregation
  SplitEvaluations before = {};         ///< before it; filled for the last aggregation only
  RoutingStatistics routing = {};       ///< over the tokens of the test split, after the aggregation
  std::vector<float> update_norm = {};  ///< [layer, expert, projection] Frobenius norm of gamma B
                                        ///< A; empty: not evaluated
  /// [category] on the examples of the test split; empty: the data set has none.
  std::vector<double> category_loss = {}, category_perplexity = {};
  /// Of a gate by sequence over the same: [category, expert] its mean weight, [category] its mean entropy.
  std::vector<float> prompt_weight = {}, prompt_entropy = {};
  /// [expert] of groups of prompts: Frobenius norm, and the distance from where it began.
  std::vector<float> prompt_norm = {}, prompt_shift = {};
  /// Share of the validation examples whose category has the largest weight; NaN after the gate's warm-up.
  double warmup_accuracy = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> aggregation_weight =
      {};  ///< [user] this user's row of the mixing matrix of shared parameters
  PhaseSeconds seconds = {};
  std::int64_t participation = 1;        ///< 1: the user took part in the round; 0: it had dropped out
  std::int64_t ranks_in_use = 0;         ///< of the experts, after the round
  std::int64_t communication_bytes = 0;  ///< payload this rank sent in the round's aggregation
  std::int64_t peak_memory_bytes = 0;    ///< device memory on a GPU, else resident set, so far
};

/// How far a round has come.
enum class Stage : std::int64_t {
  training,    ///< of the user's expert steps so many are done
  aggregated,  ///< what is shared has been averaged
  evaluated,   ///< all is done; the record is complete
};

/// Where a user stands in its run: from here it can go on, now or after a restart. At first in round 0, which
/// trains nothing.
struct RoundProgress {
  Stage stage = Stage::aggregated;
  std::int64_t steps = 0;  ///< expert steps of the round that are done
  UserRound record = {};   ///< what the round has given so far, its number among it

  void begin_next() { *this = {.stage = Stage::training, .steps = 0, .record = {.round = record.round + 1}}; }
};

/// What a user was given, fixed over the run.
struct UserDescription {
  std::string name;
  std::string host;
  std::string device;
  std::int64_t experts = 0;                    ///< experts in every MLP block
  std::vector<std::int64_t> generalists = {};  ///< which of the run's generalists its first experts are
  std::int64_t expert_rank = 0, attention_rank = 0;
  std::int64_t top_k = 0;
  std::int64_t train_tokens = 0, validation_tokens = 0, test_tokens = 0;
  /// [category] of instruction data: examples, and tokens of their responses.
  std::vector<std::int64_t> train_examples = {}, test_examples = {}, test_response_tokens = {};
  /// Of prompts: tokens of a group, the layer that they enter, and the width of their gate (0: none).
  std::int64_t prompt_tokens = 0, prompt_layer = 0, gate_width = 0;
};

/// What decides how many numbers a round takes; the same on every rank.
struct RoundShape {
  std::int64_t layers = 0;
  std::int64_t experts = 0;  ///< the most that any user has
  std::int64_t users = 0;
  std::int64_t projections = 2;  ///< that an expert has in a layer
  std::int64_t categories = 0;   ///< of examples; 0: plain text
  bool prompts = false;          ///< experts are groups of prompts
  bool gated = false;            ///< which a gate weighs by sequence
};

/// How many numbers `encode` gives.
[[nodiscard]] std::size_t block_length(const RoundShape& shape);

/// The record as `block_length(shape)` numbers; shorter vectors are padded. Integers are exact up to 2^53.
/// Throws std::invalid_argument where a vector of the record is longer than the shape allows.
[[nodiscard]] std::vector<double> encode(const UserRound& round, const RoundShape& shape);

/// The record that `encode` was given, bit for bit. Throws std::invalid_argument where the block cannot be
/// one.
[[nodiscard]] UserRound decode(std::span<const double> block, const RoundShape& shape);

}  // namespace comigs::results
