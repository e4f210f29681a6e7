// The models that a command's options name, opened to be read.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "comigs/config/model_choice.hpp"
#include "comigs/finished/trained_models.hpp"
#include "comigs/results/stored_run.hpp"

namespace comigs::finished {

/// Throws what TrainedModels throws.
struct ChosenModels {
  explicit ChosenModels(const config::ModelChoice& choice)
      : models(choice.run.empty() ? TrainedModels(choice.model, choice.precision)
                                  : TrainedModels(run.emplace(choice.run, results::Access::read),
                                                  {.model = choice.model, .data = {}})),
        chosen(models.find(choice.users)) {}
  ChosenModels(const ChosenModels&) = delete;
  ChosenModels& operator=(const ChosenModels&) = delete;

  std::optional<results::StoredRun> run;  ///< none: a base model alone
  TrainedModels models;
  std::vector<std::size_t> chosen;  ///< which of them
};

}  // namespace comigs::finished
