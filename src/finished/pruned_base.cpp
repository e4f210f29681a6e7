#include "comigs/finished/pruned_base.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/removal.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/pruned_model.hpp"
#include "comigs/run/output_folder.hpp"

namespace comigs::finished {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view written[] = {"config.json", "model.safetensors", "model.safetensors.index.json",
                                        model::pruning_file};

// What belongs to a model whatever its weights are: its tokeniser, how it is asked, under which terms.
constexpr std::string_view companions[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "tokenizer.model",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "chat_template.jinja",
                                           "generation_config.json"};
constexpr std::string_view terms[] = {"LICENSE", "LICENCE", "NOTICE"};

bool is_companion(const std::string& name) {
  return std::ranges::find(companions, name) != std::end(companions) ||
         std::ranges::any_of(terms, [&](std::string_view of) { return name.starts_with(of); });
}

// Of the files that a folder may get.
bool is_of_model(const std::string& name) {
  return is_companion(name) || std::ranges::find(written, name) != std::end(written);
}

// Those that a folder has, in the order of their names.
std::set<std::string> companions_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (const std::string name = entry.path().filename().string();
        is_companion(name) && entry.is_regular_file())
      names.insert(name);
  return names;
}

void copy_whole(const fs::path& from, const fs::path& to) {
  io::AtomicFile file(to);
  file.copy_from(from);
  file.commit();
}

void write_files(const fs::path& folder, PrunedBase& pruned) {
  const model::WeightSource stored = model::open_weights_as_stored(pruned.base);
  model::write_weights(folder, model::weight_specs(pruned.architecture), [&](const model::WeightSpec& spec) {
    const auto found = pruned.matrices.find(spec.name);
    return found == pruned.matrices.end() ? stored(spec) : found->second;
  });
  pruned.record.weights_digest = model::weights_digest(folder);
  for (const auto& [name, matrix] : pruned.matrices) pruned.record.zeros[name] = model::count_zeros(matrix);
  for (const std::string& name : companions_in(pruned.base)) copy_whole(pruned.base / name, folder / name);
  io::write_atomically(folder / model::pruning_file, model::as_json(pruned.record));
  copy_whole(pruned.base / "config.json", folder / "config.json");
}

// All files of one folder, which goes, in the place of those of a model in another. Without config.json that
// is no model: it goes first and comes last. What somebody put there himself stays, terms of use among it.
void move_into(const fs::path& made, const fs::path& folder) {
  fs::remove(folder / "config.json");
  for (const std::string_view name : written) fs::remove(folder / name);
  for (const std::string_view name : companions) fs::remove(folder / name);
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(made))
    names.insert(entry.path().filename().string());
  names.erase("config.json");
  for (const std::string& name : names) fs::rename(made / name, folder / name);
  io::synchronise_folder(folder);
  fs::rename(made / "config.json", folder / "config.json");
  io::synchronise_folder(folder);
  io::remove_empty(made);
}

}  // namespace

bool is_pruned_base(const fs::path& folder) {
  std::error_code none;
  return fs::exists(folder / "config.json", none) && fs::exists(folder / model::pruning_file, none);
}

void check_pruned_output(const std::string& output, bool replace) {
  run::check_output(output);
  const bool replaced = replace && is_pruned_base(output);
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(output, none)) {
    const std::string name = entry.path().filename().string();
    if (!is_of_model(name)) continue;
    if (!replaced)
      throw ConfigError(fmt::format(
          "--output {}: holds a model's {} already, which would be lost; remove it or name another folder",
          printable(output, 200), printable(name)));
    if (entry.symlink_status(none).type() != fs::file_type::regular)
      throw ConfigError(
          fmt::format("--output {}: its {} is a link or a folder, not a file that can be replaced",
                      printable(output, 200), printable(name)));
  }
}

data::Batch calibration_batch(const config::Prune& options, const data::Manifest& manifest,
                              std::int64_t context_tokens) {
  if (!manifest.base)
    throw DataError(
        fmt::format("{}/manifest.json: no base corpus to calibrate on ('base' is missing); users' "
                    "texts are not taken for it",
                    options.data));
  // A window is drawn with the token that follows it.
  data::require_tokens(manifest.base->train, context_tokens + 1,
                       fmt::format("--context-tokens {}", context_tokens));
  const data::TokenShard text(manifest.base->train, manifest.vocabulary);
  return data::sample_batch({&text, 1}, options.calibration_sequences, context_tokens,
                            {.seed = options.seed,
                             .user = shared_user,
                             .stream = Stream::calibration_batch,
                             .round = 0,
                             .step = 0});
}

std::string digest_of(const data::Batch& calibration) {
  return sha256(std::as_bytes(std::span(calibration.tokens)));
}

void write_pruned_base(const std::string& output, PrunedBase& pruned, bool replace) {
  const run::OutputFolder held(output);
  check_pruned_output(output, replace);
  // Whole, before anything that is there is touched.
  const fs::path made = fs::path(output) / (".new-" + io::random_hexadecimal());
  try {
    fs::create_directory(made);
    write_files(made, pruned);
    move_into(made, output);
  } catch (const fs::filesystem_error& error) {
    io::remove_ours(made, is_of_model);
    throw IoError(fmt::format("{}: {}", output, error.code().message()));
  } catch (...) {
    io::remove_ours(made, is_of_model);
    throw;
  }
}

}  // namespace comigs::finished
