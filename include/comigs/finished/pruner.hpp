// A base model that loses weights: what `comigs prune` runs.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "comigs/config/prune.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/finished/pruned_base.hpp"
#include "comigs/finished/trained_models.hpp"
#include "comigs/model/pruned_model.hpp"

namespace comigs::finished {

/// The dense base, and the text that it is calibrated on.
class Pruner {
 public:
  /// Local. Opens and checks everything but the weights, the output folder among it, which may hold a pruned
  /// base. Throws ConfigError, DataError.
  explicit Pruner(const config::Prune& options);

  [[nodiscard]] const model::Architecture& architecture() const noexcept { return models_.architecture(); }

  /// Local. Whether --output holds already what `run` would make, which is known by its record, the digests
  /// of the dense and the pruned weights, config.json and the tokeniser. Throws ConfigError naming the file,
  /// what was found and what was expected where a base there was pruned otherwise, unless it is to be
  /// replaced.
  [[nodiscard]] bool is_made() const;

  /// To be written yet. `done` is called after each layer, where they come one after the other. Throws
  /// DataError, NumericError.
  [[nodiscard]] PrunedBase run(const c10::Device& device, const std::function<void()>& done) const;

 private:
  [[nodiscard]] model::PruningRecord recipe() const;
  [[nodiscard]] std::string difference() const;
  [[nodiscard]] std::optional<data::Batch> calibration_text() const;
  [[nodiscard]] std::map<std::string, at::Tensor> matrices(const c10::Device& device,
                                                           const std::function<void()>& done) const;

  config::Prune options_;
  TrainedModels models_;  // the dense base
  model::Pruning pruning_;
  std::optional<data::Batch> text_;  // none: the method looks at none
};

}  // namespace comigs::finished
