// Plain records that rooms hand to each other: what an evaluation gave, a tensor to be stored. No behaviour
// but arithmetic on themselves.
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

/// One trainable tensor to be stored: row-major float32 in memory that the caller keeps alive.
struct ParameterView {
  std::int64_t layer = 0;
  std::int64_t expert = -1;  ///< -1: it belongs to the layer, not to an expert
  std::string name;          ///< up_A, up_B, down_A, down_B of an expert; attn.c_attn_A, ...; weight
  std::int64_t rows = 0, columns = 0;
  const float* data = nullptr;
  std::string row_dimension,
      column_dimension;         ///< such as "width"; empty: <name>_row, <name>_column
  std::string role = "expert";  ///< group of the file: expert, attention or router
};

}  // namespace comigs
