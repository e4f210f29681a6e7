// The models that a command's options name, opened to be read.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "comigs/config/model_choice.hpp"
#include "comigs/results/stored_run.hpp"
#include "comigs/run/trained_models.hpp"

namespace comigs::app {

/// Throws what run::TrainedModels throws.
struct ChosenModels {
  explicit ChosenModels(const config::ModelChoice& choice)
      : models(choice.run.empty() ? run::TrainedModels(choice.model, choice.precision)
                                  : run::TrainedModels(run.emplace(choice.run, results::Access::read),
                                                       {.model = choice.model, .data = {}})),
        chosen(models.find(choice.users)) {}
  ChosenModels(const ChosenModels&) = delete;
  ChosenModels& operator=(const ChosenModels&) = delete;

  std::optional<results::StoredRun> run;  ///< none: a base model alone
  run::TrainedModels models;
  std::vector<std::size_t> chosen;  ///< which of them
};

}  // namespace comigs::app
