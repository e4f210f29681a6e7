// Texts that finished models continue: what `comigs generate` runs.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comigs/config/generate.hpp"
#include "comigs/data/probes.hpp"
#include "comigs/data/vocabulary.hpp"
#include "comigs/finished/chosen_models.hpp"
#include "comigs/train/generation.hpp"

namespace comigs::finished {

/// What one model made of one text.
struct Continuation {
  std::string model, prompt;  ///< names; of the base `model` is empty
  std::vector<std::int64_t> ids;
  bool has_ended = false;  ///< by a token that ends a text, which is the last
};

/// The chosen models, and the base where it is asked for, each after every text of a file.
class Continuations {
 public:
  /// Local. Opens and checks everything but the weights. Throws ConfigError, DataError.
  explicit Continuations(const config::Generate& options);

  [[nodiscard]] const TrainedModels& models() const noexcept { return chosen_.models; }
  /// How many continuations `run` makes.
  [[nodiscard]] std::int64_t count() const;

  /// The base first, then model by model; `done` is called after each with the name of its model. Throws
  /// DataError, NumericError.
  [[nodiscard]] std::vector<Continuation> run(const c10::Device& device,
                                              const std::function<void(const std::string&)>& done) const;

  /// Without the token that ended it; nothing where no tokeniser is known.
  [[nodiscard]] std::optional<std::string> text_of(const Continuation& one) const;

 private:
  void check_lengths(const config::Generate& options) const;

  ChosenModels chosen_;
  std::vector<data::Probe> prompts_;
  train::GenerationOptions how_;
  std::optional<data::Vocabulary> vocabulary_;
  bool with_base_;
};

}  // namespace comigs::finished
