// The models that there are once a run has finished: its users', as they were left, or a base model alone.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/data/probes.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/results/stored_run.hpp"

namespace comigs::finished {

/// Folders of what a run was made from, as they are now; empty: as recorded.
struct Places {
  std::string model, data;
};

/// Settled and checked before anything large is loaded; local. Keeps a reference to the run.
class TrainedModels {
 public:
  /// Of every user of a finished run. Throws DataError where the run has not finished, its file cannot hold
  /// what was trained, or the base in its place is another; ConfigError where its configuration cannot be.
  TrainedModels(const results::StoredRun& run, const Places& places);
  /// Of a base model, as it is. Throws DataError.
  TrainedModels(const std::string& base_folder, config::Precision precision);

  /// The run's, but for the folders that were given; of a base: what its options are by default.
  [[nodiscard]] const config::Config& config() const noexcept { return config_; }
  [[nodiscard]] const federation::Method& method() const noexcept { return *method_; }
  [[nodiscard]] const model::Architecture& architecture() const noexcept { return architecture_; }
  /// The longest text that all models take: the base's positions, less those of prompts in front of it.
  [[nodiscard]] std::int64_t positions() const;
  /// One a model.
  [[nodiscard]] const std::vector<adapter::UserModel>& users() const noexcept { return users_; }
  /// Of the users; of a base it is empty.
  [[nodiscard]] const std::vector<std::string>& names() const noexcept { return names_; }
  [[nodiscard]] bool is_of_run() const noexcept { return run_ != nullptr; }

  /// The models of the users that are named, joined by commas, in this order; all, where none is. Throws
  /// ConfigError.
  [[nodiscard]] std::vector<std::size_t> find(const std::string& names) const;

  /// The run's data set. Throws DataError where another one lies there, or none, with words on what else
  /// there is to be done.
  [[nodiscard]] data::Manifest open_data(const std::string& otherwise = {}) const;

  /// Texts of a file that the base model's tokeniser made. Throws DataError.
  [[nodiscard]] std::vector<data::Probe> open_probes(const std::string& file) const;

  /// The frozen weights, computed on the device as the run says; warns where that is not as it was then.
  [[nodiscard]] std::unique_ptr<model::BaseModel> load_base(const c10::Device& device) const;
  /// What the model has beside them. Throws DataError.
  [[nodiscard]] adapter::Parameters parameters(std::size_t model, const c10::Device& device) const;
  /// What the base alone has beside them: nothing.
  [[nodiscard]] adapter::Parameters of_base(const c10::Device& device) const;
  /// How many sequences its run evaluated at a time on such a device.
  [[nodiscard]] std::int64_t evaluation_sequences(std::size_t model, const c10::Device& device) const;

 private:
  void check_finished() const;
  void check_size() const;

  const results::StoredRun* run_ = nullptr;  // none: a base alone
  config::Config config_;
  const federation::Method* method_;
  std::vector<adapter::UserModel> users_;
  std::vector<std::string> names_;
  model::Architecture architecture_;
};

}  // namespace comigs::finished
