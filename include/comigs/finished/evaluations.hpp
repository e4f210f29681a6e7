// Finished models on users' texts: what `comigs evaluate` runs.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <string>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/config/evaluate.hpp"
#include "comigs/data/token_shard.hpp"
#include "comigs/finished/chosen_models.hpp"

namespace comigs::finished {

/// One model on one user's texts.
struct ModelEvaluation {
  std::string model, texts;  ///< names of users; of a base alone `model` is empty
  std::int64_t context_tokens = 0;
  Evaluation evaluation;
};

/// The chosen models, each on the texts of every user of a data set.
class Evaluations {
 public:
  /// Local. Opens and checks everything but the weights. Throws ConfigError, DataError.
  explicit Evaluations(const config::Evaluate& options);

  [[nodiscard]] const ChosenModels& models() const noexcept { return chosen_; }
  [[nodiscard]] const data::Manifest& data_set() const noexcept { return manifest_; }
  /// Texts, those of a user each.
  [[nodiscard]] std::size_t texts() const noexcept { return texts_.size(); }
  /// How many evaluations `run` makes.
  [[nodiscard]] std::int64_t count() const;

  /// Model by model, of each all texts in the order of the data set's users. `done` is called after each
  /// evaluation with the name of its text. Throws DataError, NumericError.
  [[nodiscard]] std::vector<ModelEvaluation> run(const c10::Device& device,
                                                 const std::function<void(const std::string&)>& done) const;

 private:
  // The texts of one user, and how many tokens of a split of a run's own data the run evaluated (0: all).
  struct Text {
    std::string name;
    data::TokenShard shard;
    std::int64_t tokens = 0;
  };

  [[nodiscard]] config::Config settled(const config::Evaluate& options) const;
  [[nodiscard]] Text open_text(const config::Evaluate& options, std::size_t user) const;
  [[nodiscard]] std::int64_t leading_tokens(std::size_t user) const;

  ChosenModels chosen_;
  config::Config config_;  // the run's, for what is evaluated
  data::Manifest manifest_;
  std::vector<Text> texts_;
  std::int64_t sequences_;  // at a time; 0: as the run evaluates
};

}  // namespace comigs::finished
