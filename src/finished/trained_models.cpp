#include "comigs/finished/trained_models.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/job/checks.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/precision.hpp"
#include "comigs/model/pruning_record.hpp"
#include "comigs/run/identity.hpp"

namespace comigs::finished {

namespace {

namespace fs = std::filesystem;

config::Config recorded_configuration(const results::StoredRun& run, const Places& places) {
  config::Config config = run::configuration(run.record().identity, run.path().string());
  if (!places.model.empty()) config.model.folder = places.model;
  if (!places.data.empty()) config.data.folder = places.data;
  return config;
}

config::Config configuration_of_base(const std::string& folder, config::Precision precision) {
  config::Config config;
  config.model.folder = folder;
  config.run.precision = precision;
  config.method.name = "pretrained";
  config.users.emplace_back();
  return config;
}

std::vector<std::string> split_names(const std::string& list) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    names.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

// Throws DataError where it is not the one that the run was made with.
model::Architecture read_base(const results::StoredRun& run, const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw DataError(
        fmt::format("{}: no such folder; --model says where the run's base model is now", folder.string()));
  const model::Architecture architecture = model::read_architecture(folder);
  const std::string& recorded = run.record().identity.base_architecture;
  if (!recorded.empty())  // as it is in results of 0.1
    if (const std::vector<std::string> unlike =
            run::architecture_differences(recorded, model::config_json(architecture), run.path().string());
        !unlike.empty())
      throw DataError(
          fmt::format("{}/config.json: not that of the base model of {} ('there'): {}; --model says "
                      "where that is",
                      folder.string(), run.path().string(), fmt::join(unlike, "; ")));
  if (model::weights_digest(folder) != run.record().identity.base_digest ||
      architecture.layers != run.record().shape.layers)
    throw DataError(
        fmt::format("{}: not the base model of {}, the SHA-256 of whose weights is {}; --model says "
                    "where that is",
                    folder.string(), run.path().string(), printable(run.record().identity.base_digest)));
  return architecture;
}

// Throws DataError where the folder says what does not hold.
void check_base_pruning(const fs::path& folder, const model::Architecture& architecture) {
  if (const auto record = model::read_pruning(folder, architecture))
    model::check_pruning(folder, architecture, *record);
}

}  // namespace

TrainedModels::TrainedModels(const results::StoredRun& run, const Places& places)
    : run_(&run),
      config_(recorded_configuration(run, places)),
      method_(&federation::find_method(config_.method.name)),
      names_(run.record().identity.users) {
  federation::check_method(*method_, config_);
  users_ = federation::user_models(*method_, config_.users);
  check_finished();
  architecture_ = read_base(run, config_.model.folder);
  check_base_pruning(config_.model.folder, architecture_);
  job::check_prompts(config_, users_, architecture_);
  check_size();
}

TrainedModels::TrainedModels(const std::string& base_folder, config::Precision precision)
    : config_(configuration_of_base(base_folder, precision)),
      method_(&federation::find_method(config_.method.name)),
      users_(federation::user_models(*method_, config_.users)),
      names_(1),
      architecture_(model::read_architecture(base_folder)) {
  check_base_pruning(base_folder, architecture_);
}

std::int64_t TrainedModels::positions() const {
  std::int64_t in_front = 0;
  for (const adapter::UserModel& user : users_) in_front = std::max(in_front, user.positions_in_front());
  return architecture_.positions - in_front;
}

void TrainedModels::check_finished() const {
  const results::RunRecord& record = run_->record();
  if (record.rounds < config_.run.rounds)
    throw DataError(
        fmt::format("{}: round {} of {} is the last one there; models are stored when a run has finished",
                    run_->path().string(), record.rounds, config_.run.rounds));
  std::int64_t experts = 1;
  for (const adapter::UserModel& user : users_) experts = std::max(experts, user.experts);
  if (record.shape.experts != experts)
    throw DataError(fmt::format("{}: arrays for {} experts a user, but its configuration has {}",
                                run_->path().string(), record.shape.experts, experts));
}

// Memory for the models is taken only where the file is large enough to hold them.
void TrainedModels::check_size() const {
  const auto file_bytes = static_cast<std::int64_t>(fs::file_size(run_->path()));
  for (const adapter::UserModel& user : users_) {
    const std::int64_t numbers = adapter::Layout(architecture_, user).size();
    if (numbers > file_bytes / static_cast<std::int64_t>(sizeof(float)))
      throw DataError(
          fmt::format("{}: {} bytes, too few for the {} trained numbers of a user that its "
                      "configuration promises",
                      run_->path().string(), file_bytes, numbers));
  }
}

std::vector<std::size_t> TrainedModels::find(const std::string& names) const {
  std::vector<std::size_t> found;
  const auto add = [&](const std::string& name) {
    const auto place = std::ranges::find(names_, name);
    if (place == names_.end())
      throw ConfigError(fmt::format("--users: no user '{}' in {}, whose users are {}", printable(name),
                                    run_->path().string(),
                                    printable(fmt::format("{}", fmt::join(names_, ", ")), 400)));
    found.push_back(static_cast<std::size_t>(place - names_.begin()));
  };
  if (names.empty()) {
    for (const std::string& name : names_) add(name);
  } else if (std::ranges::find(names_, names) != names_.end()) {
    add(names);  // a name may have commas
  } else {
    std::set<std::string> named;
    for (const std::string& name : split_names(names)) {
      add(name);
      if (!named.insert(name).second)
        throw ConfigError(
            fmt::format("--users: '{}' is named twice, expected each user once", printable(name)));
    }
  }
  return found;
}

data::Manifest TrainedModels::open_data(const std::string& otherwise) const {
  const std::string& folder = config_.data.folder;
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw DataError(fmt::format("{}: no such data-set folder; --data says where the run's data set is now{}",
                                folder, otherwise));
  data::Manifest manifest = data::read_manifest(folder);
  if (const results::RunIdentity& identity = run_->record().identity; manifest.digest != identity.data_digest)
    throw DataError(
        fmt::format("{}: not the data set of {}, the SHA-256 of whose manifest.json is {}; --data says where "
                    "that is{}",
                    folder, run_->path().string(), printable(identity.data_digest), otherwise));
  return manifest;
}

std::vector<data::Probe> TrainedModels::open_probes(const std::string& file) const {
  data::ProbeFile found = data::read_probes(file);
  if (!job::takes_vocabulary(found.vocabulary, config_.model.folder, architecture_))
    throw DataError(
        fmt::format("{}: made with a tokeniser of {} entries, but the base model {} has a vocabulary of "
                    "{}; make it with the base model's own tokeniser",
                    file, found.vocabulary, config_.model.folder, architecture_.vocabulary));
  return std::move(found.probes);
}

std::unique_ptr<model::BaseModel> TrainedModels::load_base(const c10::Device& device) const {
  const model::Computation computation = job::computation(config_.run, device);
  if (run_ != nullptr) {
    const std::string here = model::name_of(computation.computed),
                      &trained = run_->record().identity.activations;
    if (!trained.empty() && trained != here) spdlog::warn("computed in {}; the run was in {}", here, trained);
  }
  return model::load_base_model(config_.model.folder, computation.stored, device, computation.computed);
}

adapter::Parameters TrainedModels::of_base(const c10::Device& device) const {
  return {architecture_, {.experts = 0, .generalists = {}, .gate = adapter::Gate::none}, device};
}

adapter::Parameters TrainedModels::parameters(std::size_t model, const c10::Device& device) const {
  adapter::Parameters parameters(architecture_, users_[model], device);
  if (run_ == nullptr) return parameters;
  const at::Tensor host = at::empty_like(parameters.values(), at::TensorOptions().device(at::kCPU));
  float* block = host.data_ptr<float>();
  run_->read_weights(config_.run.rounds, model,
                     adapter::stored_parameters(architecture_, users_[model], block),
                     {block, static_cast<std::size_t>(host.numel())});
  parameters.values().copy_(host);
  return parameters;
}

std::int64_t TrainedModels::evaluation_sequences(std::size_t model, const c10::Device& device) const {
  config::User user = config_.users[model];
  user.micro_batch_sequences =
      job::micro_batch_sequences(config_, model, architecture_, users_[model], device);
  return job::evaluation_sequences(user);
}

}  // namespace comigs::finished
