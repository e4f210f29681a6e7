// Making a small base model from scratch, data-parallel over ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/base/records.hpp"
#include "comigs/config/pretrain.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/data/token_shard.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/train/adamw.hpp"

namespace comigs::train {

/// Adds a block of float32 (in the model's memory) up over all ranks, in place.
using SumOverRanks = std::function<void(std::span<float>)>;

/// Owns all weights of a model in one flat block [matrices | biases and scales] with gradients and optimiser
/// state. Every rank holds the same numbers; a step's gradient is the mean over the whole batch, so that
/// results differ between rank counts by rounding only.
class Pretraining {
 public:
  Pretraining(const config::Pretrain& plan, std::int64_t vocabulary, const at::Device& device,
              data::Share share);

  /// Collective through `sum`. Step `step` from 0; returns the batch's mean loss (nats) on every rank.
  double step(std::int64_t step, const data::TokenShard& text, const SumOverRanks& sum);
  /// Local. Perplexity on a whole shard. Throws Interrupted where `stop`, asked before each batch, says so.
  [[nodiscard]] Evaluation evaluate(const data::TokenShard& text, std::function<bool()> stop = {}) const;
  /// The blocks [P] that, with the number of steps done, say where training stands; to be read and
  /// overwritten.
  [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> state() const;
  /// Writes the Hugging Face folder (float32). Throws IoError.
  void write(const std::filesystem::path& folder) const;
  [[nodiscard]] std::int64_t parameters() const { return values_.numel(); }

 private:
  void initialise();
  /// The weights one after the other, as the model's family lists them.
  [[nodiscard]] model::WeightSource in_order() const;

  config::Pretrain plan_;
  data::Share share_;
  model::Architecture architecture_;
  std::vector<model::WeightSpec> specs_;
  std::vector<at::Tensor> weights_;  ///< autograd leaves, one for each spec
  at::Tensor values_, gradients_;    ///< [P + 1]: the last gradient element carries the loss through the sum
  adapter::Slice decayed_, undecayed_;
  std::unique_ptr<model::BaseModel> base_;
  std::unique_ptr<adapter::Parameters> no_parameters_;
  std::unique_ptr<Adamw> optimiser_;
};

}  // namespace comigs::train
