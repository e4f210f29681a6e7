// Perplexity of a whole split and how its tokens were routed.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/base/random.hpp"
#include "comigs/base/records.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/data/token_shard.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/recording.hpp"

namespace comigs::train {

/// What evaluations of one model keep between them, so that a GPU launches what it recorded in the first
/// ones: for each size of a batch its inputs and what comes of it. For the same base and parameters, in the
/// same place.
class EvaluationPasses {
 public:
  /// `memory` must outlive them.
  explicit EvaluationPasses(model::RecordingMemory& memory);
  EvaluationPasses(const EvaluationPasses&) = delete;
  EvaluationPasses& operator=(const EvaluationPasses&) = delete;
  ~EvaluationPasses();

  struct Pass;
  [[nodiscard]] Pass& of(std::int64_t sequences, std::int64_t context, const c10::Device& device);

 private:
  model::RecordingMemory& memory_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::unique_ptr<Pass>> passes_;
};

struct EvaluationOptions {
  std::int64_t context = 128;   ///< T
  std::int64_t sequences = 32;  ///< run at a time
  std::int64_t tokens = 0;      ///< leading tokens of the split (data::TokenShard::leading); 0: all
  std::int64_t categories = 0;  ///< of the data set; 0: its splits are plain text
  /// Asked before each batch; where it says so, Interrupted is thrown.
  std::function<bool()> stop = {};
  EvaluationPasses* passes = nullptr;  ///< for windows of a text; null: nothing is kept
};

/// Of the examples of each category: what was measured on their responses, and of a gate by sequence the
/// means over examples, NaN where there is none.
struct CategoryReport {
  std::vector<Evaluation> evaluation;  ///< [category]
  std::vector<float> gate;             ///< [category, E] weight; empty without such a gate
  std::vector<float> gate_entropy;     ///< [category] nats
  double gate_accuracy = std::numeric_limits<double>::quiet_NaN();  ///< share with the largest weight there
};

struct SplitReport {
  Evaluation evaluation;
  /// [L, E] over the same tokens, by sequence over the examples; empty where nothing is routed, NaN in layers
  /// where nothing is.
  RoutingStatistics routing;
  CategoryReport by_category;
};

/// Local. Predicts every token of the split but its first exactly once, from at most T tokens before it in
/// windows that do not overlap; of examples, every token of their responses, from all before it in the
/// example. Sums in float64. The same bits whenever it is called on the same numbers.
[[nodiscard]] SplitReport evaluate(const model::BaseModel& base, const adapter::Parameters& parameters,
                                   const data::TokenShard& shard, const EvaluationOptions& options);

/// Local. A part of that work, for processes that have the same model and the same text: what is summed up,
/// of each batch that is `share`'s. Batch b is that of process b mod share.of. [ceil(batches / share.of), n]
/// row-major, with zeros where the last row is nobody's; of all batches together, [1, n], where there is one
/// process.
[[nodiscard]] std::vector<double> batch_sums(const model::BaseModel& base,
                                             const adapter::Parameters& parameters,
                                             const data::TokenShard& shard, const EvaluationOptions& options,
                                             data::Share share);
/// Local. What `evaluate` returns, the same bits, from the sums of all `processes`, one's after the other's.
[[nodiscard]] SplitReport report(const model::BaseModel& base, const adapter::Parameters& parameters,
                                 std::int64_t categories, std::span<const double> sums,
                                 std::int64_t processes);

/// Local. Text that tells apart what is evaluated, and how, but for the model: with the same model those that
/// have it in common have the same report. Empty where the shard has no identity.
[[nodiscard]] std::string evaluation_key(const data::TokenShard& shard, const EvaluationOptions& options);

/// Local. What the gate by sequence reads of each example, [n, C] float32 in host memory, one text's after
/// the other's.
[[nodiscard]] at::Tensor gate_features(const model::BaseModel& base, const adapter::Parameters& parameters,
                                       std::span<const data::TokenShard> texts,
                                       const EvaluationOptions& options);

/// Local. Mean loss (nats a token) of `batches` random batches of the user's size, in micro-batches as it
/// trains; which ones depends on `key` alone, whose step is set by the batch's number.
[[nodiscard]] double sampled_loss(const model::BaseModel& base, const adapter::Parameters& parameters,
                                  const data::TokenShard& shard, std::int64_t batches,
                                  const config::User& user, StreamKey key);

/// Local. The gate weights [n, L, E] of n tokens, float32 in host memory, in windows of at most T = `context`
/// tokens that do not overlap, nor reach from one part of the text into the next; parts begin at `begins`,
/// the first at 0. 1 / E where no router decides. A gate by sequence reads the first of `instruction` [part]
/// tokens of each part (empty: its first window) and weighs it as a whole, from the layer that prompts enter;
/// below it all is NaN.
[[nodiscard]] at::Tensor gates(const model::BaseModel& base, const adapter::Parameters& parameters,
                               const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& begins,
                               const std::vector<std::int64_t>& instruction, std::int64_t context);

}  // namespace comigs::train
