// Texts through the models that the users of a run ended with, token by token: what `comigs route` runs.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comigs/config/route.hpp"
#include "comigs/data/probes.hpp"
#include "comigs/finished/trained_models.hpp"
#include "comigs/results/stored_run.hpp"

namespace comigs::finished {

/// A text by all users' models.
struct RoutedText {
  results::TokenRouting tokens;
  std::vector<double> generalist_shares;  ///< [user] mean gate weight of generalists over tokens and layers
};

/// A finished run's models, and the texts whose routing is to be added to its file.
class RoutedTexts {
 public:
  /// Local. Opens and checks everything but the weights. Throws ConfigError, DataError.
  explicit RoutedTexts(const config::Route& options);
  RoutedTexts(const RoutedTexts&) = delete;
  RoutedTexts& operator=(const RoutedTexts&) = delete;

  /// Held by this process, to be added to.
  [[nodiscard]] results::StoredRun& stored_run() noexcept { return run_; }
  [[nodiscard]] const TrainedModels& models() const noexcept { return models_; }
  /// How many texts go through a model each in `run`.
  [[nodiscard]] std::int64_t count() const;

  /// Text by text. `done` is called after each with the name of the user whose model it was. Throws
  /// DataError, NumericError.
  [[nodiscard]] std::vector<RoutedText> run(const c10::Device& device,
                                            const std::function<void(const std::string&)>& done) const;

 private:
  [[nodiscard]] std::vector<data::Probe> read_probes(const config::Route& options) const;

  results::StoredRun run_;
  TrainedModels models_;
  std::vector<data::Probe> probes_;
};

}  // namespace comigs::finished
