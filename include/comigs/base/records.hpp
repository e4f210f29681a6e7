// Plain records that rooms hand to each other: what a user had, what a round gave. No behaviour but
// arithmetic on themselves.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace comigs {

/// Cross entropy over the tokens of a split. `tokens == 0` means not evaluated: loss and perplexity are then
/// NaN.
struct Evaluation {
  double loss_sum = 0.0;    ///< nats, summed over predicted tokens
  std::int64_t tokens = 0;  ///< predicted tokens

  [[nodiscard]] double loss() const {
    return tokens > 0 ? loss_sum / static_cast<double>(tokens) : std::numeric_limits<double>::quiet_NaN();
  }
  [[nodiscard]] double perplexity() const { return std::exp(loss()); }
};

/// Means over evaluated tokens, row-major. Empty vectors: nothing was routed (one expert, no experts, or not
/// evaluated).
struct RoutingStatistics {
  std::vector<float> score;    ///< [layer, expert] mean gate weight
  std::vector<float> load;     ///< [layer, expert] fraction of tokens with the expert in their top-k
  std::vector<float> entropy;  ///< [layer] mean entropy of the softmax that gates are taken from, nats
};

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
  std::vector<double> aggregation_weight =
      {};  ///< [user] this user's row of the mixing matrix of shared parameters
  PhaseSeconds seconds = {};
  std::int64_t participation = 1;        ///< 1: the user took part in the round; 0: it had dropped out
  std::int64_t lora_rank = 0;            ///< ranks in use after the round
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
  std::int64_t lora_rank = 0;
  std::int64_t top_k = 0;
  std::int64_t train_tokens = 0, validation_tokens = 0, test_tokens = 0;
};

/// One trainable tensor to be stored: row-major float32 in memory that the caller keeps alive.
struct ParameterView {
  std::int64_t layer = 0;
  std::int64_t expert = -1;  ///< -1: it belongs to the layer, not to an expert
  std::string name;          ///< up_A, up_B, down_A, down_B of an expert; attn.c_attn_A, ...; weight
  std::int64_t rows = 0, columns = 0;
  const float* data = nullptr;
  std::string row_dimension,
      column_dimension;         ///< such as "lora_rank", "width"; empty: <name>_row, <name>_column
  std::string role = "expert";  ///< group of the file: expert, attention or router
};

}  // namespace comigs
