#include "comigs/finished/inspection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/io/safetensors.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/end_of_text.hpp"
#include "comigs/model/pruning_record.hpp"
#include "comigs/results/checkpoint.hpp"
#include "comigs/results/stored_run.hpp"
#include "comigs/run/identity.hpp"

namespace comigs::finished {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool has(const fs::path& folder, const char* name) {
  std::error_code error;
  return fs::exists(folder / name, error);
}

// NaN: not measured. JSON has neither that nor infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

// Of what a run need not have.
Json digest(const std::string& text) { return text.empty() ? Json() : Json(text); }

// Base models -------------------------------------------------------------------------------------------

// The types of the stored tensors: "F32".
Json stored_types(const fs::path& folder) {
  std::set<std::string> types;
  for (const fs::path& file : model::weight_files(folder)) {
    const io::SafetensorsFile weights(file);
    for (const auto& [name, tensor] : weights.tensors()) types.emplace(io::name_of(tensor.dtype));
  }
  return types;
}

// What was taken away, and of what; null: nothing says so.
Json pruning_of(const fs::path& folder, const model::Architecture& architecture) {
  const std::optional<model::PruningRecord> record = model::read_pruning(folder, architecture);
  if (!record) return {};
  model::check_pruning(folder, architecture, *record);
  const model::Sparsity& sparsity = record->sparsity;
  const bool in_runs = sparsity.of > 0;
  return {{"method", record->method},
          {"share", in_runs ? Json() : Json(sparsity.share)},
          {"zeros", in_runs ? Json(sparsity.zeros) : Json()},
          {"of", in_runs ? Json(sparsity.of) : Json()},
          {"share_of_zeros", record->share_of_zeros(architecture)},
          {"calibration_sha256", record->calibration ? Json(record->calibration->digest) : Json()},
          {"base_sha256", record->base_digest}};
}

Json of_base(const fs::path& folder) {
  const model::Architecture architecture = model::read_architecture(folder);
  std::int64_t parameters = 0;
  for (const model::WeightSpec& spec : model::weight_specs(architecture)) parameters += spec.count();
  return {{"kind", "base model"},
          {"folder", folder.string()},
          {"family", architecture.family},
          {"layers", architecture.layers},
          {"width", architecture.width},
          {"heads", architecture.heads},
          {"key_value_heads", architecture.key_value_heads},
          {"inner", architecture.inner},
          {"vocabulary", architecture.vocabulary},
          {"positions", architecture.positions},
          {"tied_head", architecture.tied_head},
          {"parameters", parameters},
          {"stored_as", stored_types(folder)},
          {"tokeniser", has(folder, "tokenizer.json")},
          {"end_of_text", model::end_of_text(folder)},
          {"sha256", model::weights_digest(folder)},
          {"pruning", pruning_of(folder, architecture)}};
}

// Data sets ---------------------------------------------------------------------------------------------

// Tokens by split; of instruction data, too, how many examples they are, and how long the longest is.
Json shards_of(const data::UserShards& user) {
  Json row = {{"name", user.name},
              {"train", user.train.tokens},
              {"validation", user.validation.tokens},
              {"test", user.test.tokens}};
  if (!user.train.examples) return row;
  row["train_examples"] = user.train.examples->count;
  row["validation_examples"] = user.validation.examples->count;
  row["test_examples"] = user.test.examples->count;
  row["longest_example"] = std::max(
      {user.train.examples->longest, user.validation.examples->longest, user.test.examples->longest});
  return row;
}

Json of_data_set(const fs::path& folder) {
  const data::Manifest manifest = data::read_manifest(folder);
  Json users = Json::array();
  for (const data::UserShards& user : manifest.users) users.push_back(shards_of(user));
  Json base;
  if (manifest.base)
    base = {{"train", manifest.base->train.tokens}, {"validation", manifest.base->validation.tokens}};
  const bool narrow = manifest.users.front().train.type == data::TokenType::uint16;
  return {{"kind", "data set"},
          {"folder", folder.string()},
          {"name", manifest.name},
          {"vocabulary", manifest.vocabulary},
          {"end_of_text", manifest.end_of_text ? Json(*manifest.end_of_text) : Json()},
          {"stored_as", narrow ? "uint16" : "uint32"},
          {"tokeniser", manifest.tokeniser.string()},
          {"sha256", manifest.digest},
          {"base_tokens", base},
          {"categories", manifest.categories.empty() ? Json() : Json(manifest.categories)},
          {"users", users}};
}

// Runs --------------------------------------------------------------------------------------------------

Json users_of(const results::StoredRun& run, const federation::Method& method, const config::Config& config) {
  const std::vector<adapter::UserModel> models = federation::user_models(method, config.users);
  const std::vector<results::LastPerplexities> last = run.last_perplexities();
  Json users = Json::array();
  for (std::size_t user = 0; user < models.size(); ++user) {
    Json row{{"name", run.record().identity.users[user]},
             {"experts", models[user].experts},
             {"generalists", models[user].generalists.size()}};
    for (const auto& [name, size] : models[user].kind->sizes(models[user])) row[name] = size;
    row["context_tokens"] = config.users[user].context_tokens;
    row["train_perplexity"] = number(last[user].train);
    row["validation_perplexity"] = number(last[user].validation);
    row["test_perplexity"] = number(last[user].test);
    users.push_back(std::move(row));
  }
  return users;
}

// The checkpoint that a run which has not ended would go on from.
Json newest_checkpoint(const fs::path& results) {
  const std::vector<fs::path> sets = results::complete_sets(results.parent_path() / "checkpoints");
  return sets.empty() ? Json() : Json(sets.front().string());
}

Json of_run(const fs::path& place) {
  const results::StoredRun run(place, results::Access::read);
  const results::RunRecord& record = run.record();
  const config::Config config = run::configuration(record.identity, run.path().string());
  const federation::Method& method = federation::find_method(config.method.name);
  federation::check_method(method, config);
  return {{"kind", "run"},
          {"file", run.path().string()},
          {"method", method.name},
          {"rounds", config.run.rounds},
          {"rounds_done", record.rounds},
          {"finished", record.rounds >= config.run.rounds},
          {"checkpoint", newest_checkpoint(run.path())},
          {"seed", config.run.seed},
          {"data", config.data.folder},
          {"data_sha256", record.identity.data_digest},
          {"base", config.model.folder},
          {"base_sha256", record.identity.base_digest},
          {"adapter_sha256", digest(record.identity.init_adapter_digest)},
          {"activations", record.identity.activations},
          {"history", record.history},
          {"users", users_of(run, method, config)},
          {"configuration", record.identity.configuration}};
}

// Checkpoints -------------------------------------------------------------------------------------------

const char* name_of(results::Stage stage) {
  switch (stage) {
    case results::Stage::training:
      return "training";
    case results::Stage::aggregated:
      return "aggregated";
    case results::Stage::evaluated:
      return "evaluated";
  }
  return "";
}

Json of_checkpoint(const fs::path& set) {
  const results::CheckpointManifest manifest = results::read_manifest(set);
  (void)run::configuration(manifest.identity, set.string());  // that it is one, before it is shown
  Json users = Json::array(), blocks = Json::array();
  for (std::size_t user = 0; user < manifest.parts.size(); ++user) {
    const std::string& name = manifest.identity.users[user];
    const results::PartSummary part = results::summarise_part(set, user, manifest.parts[user]);
    users.push_back({{"name", name},
                     {"phase", name_of(part.stage)},
                     {"steps", part.steps},
                     {"bytes", manifest.parts[user].bytes}});
    for (const auto& [block, numbers] : part.blocks)
      blocks.push_back({{"user", name}, {"block", block}, {"numbers", numbers}});
  }
  return {{"kind", "checkpoint"},
          {"folder", set.string()},
          {"round", manifest.round},
          {"data_sha256", manifest.identity.data_digest},
          {"base_sha256", manifest.identity.base_digest},
          {"adapter_sha256", digest(manifest.identity.init_adapter_digest)},
          {"activations", manifest.identity.activations},
          {"users", users},
          {"blocks", blocks},
          {"configuration", manifest.identity.configuration}};
}

// Both data sets and checkpoints have one.
bool is_checkpoints(const fs::path& manifest) {
  const io::MappedFile content(manifest);
  const nlohmann::json root = io::parse_json(content.bytes(), manifest.string());
  return root.is_object() && root.value("format", nlohmann::json()) == "comigs-checkpoint";
}

}  // namespace

Json inspected(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error) || has(path, "results.h5")) return of_run(path);
  if (has(path, "config.json")) return of_base(path);
  if (has(path, "manifest.json"))
    return is_checkpoints(path / "manifest.json") ? of_checkpoint(path) : of_data_set(path);
  if (const std::vector<fs::path> sets = results::complete_sets(path); !sets.empty())
    return of_checkpoint(sets.front());
  throw DataError(fmt::format(
      "{}: {}, expected a base model (config.json), a data set or a checkpoint (manifest.json), "
      "or a run (results.h5)",
      path.string(), fs::exists(path, error) ? "none of these lies there" : "no such folder or file"));
}

}  // namespace comigs::finished
