#include "comigs/finished/pruner.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/config/value.hpp"
#include "comigs/job/checks.hpp"

namespace comigs::finished {

namespace {

namespace fs = std::filesystem;

model::PruningMethod method_of(config::PruningMethod method) {
  switch (method) {
    case config::PruningMethod::magnitude:
      return model::PruningMethod::magnitude;
    case config::PruningMethod::wanda:
      return model::PruningMethod::wanda;
    case config::PruningMethod::sparsegpt:
      return model::PruningMethod::sparsegpt;
  }
  throw std::logic_error("no such pruning method");
}

// Runs of inputs must not be cut.
void check_pattern(const model::Sparsity& sparsity, const std::string& folder,
                   const model::Architecture& architecture) {
  if (sparsity.of == 0) return;
  for (const model::Projection& map : model::linear_maps(architecture))
    if (map.in % sparsity.of != 0)
      throw ConfigError(
          fmt::format("--pattern: found runs of {}, but {} of the base model {} has {} inputs; "
                      "expected a divisor of that",
                      sparsity.of, map.name, printable(folder, 200), map.in));
}

std::int64_t context_of(const config::Prune& options, const model::Architecture& architecture) {
  if (options.context_tokens > architecture.positions)
    throw ConfigError(fmt::format("--context-tokens {}: the base model {} has {} positions",
                                  options.context_tokens, printable(options.model, 200),
                                  architecture.positions));
  return options.context_tokens > 0 ? options.context_tokens
                                    : std::min(architecture.positions, config::most_calibration_context);
}

bool have_same(const char* name, const fs::path& one, const fs::path& other) {
  const auto digest = [&](const fs::path& folder) {
    return fs::exists(folder / name) ? sha256_of_file(folder / name) : "missing";
  };
  return digest(one) == digest(other);
}

// A model of the base, once nothing stands in the way of what is written.
TrainedModels open_dense(const config::Prune& options) {
  std::error_code none;
  if (fs::equivalent(options.model, options.output, none))
    throw ConfigError(fmt::format("--output {}: is the base model itself; name another folder",
                                  printable(options.output, 200)));
  if (!is_pruned_base(options.output) || options.replace)
    check_pruned_output(options.output, options.replace);
  return {options.model, options.precision};
}

}  // namespace

Pruner::Pruner(const config::Prune& options)
    : options_(options),
      models_(open_dense(options)),
      pruning_{.method = method_of(options.method),
               .sparsity = {.share = options.sparsity.share.value_or(0.0),
                            .zeros = options.pattern.zeros,
                            .of = options.pattern.of}} {
  check_pattern(pruning_.sparsity, options.model, architecture());
  text_ = calibration_text();
}

// Text of the base corpus in the base model's tokens.
std::optional<data::Batch> Pruner::calibration_text() const {
  if (options_.method == config::PruningMethod::magnitude) {
    if (!options_.data.empty())
      spdlog::warn("--data has no effect with --method magnitude: it needs no text");
    return std::nullopt;
  }
  config::Config config = models_.config();
  config.data.folder = options_.data;
  config.users.front().context_tokens = context_of(options_, architecture());
  const data::Manifest manifest = data::read_manifest(options_.data);
  job::check_base(config, manifest, architecture());
  return calibration_batch(options_, manifest, config.users.front().context_tokens);
}

std::map<std::string, at::Tensor> Pruner::matrices(const c10::Device& device,
                                                   const std::function<void()>& done) const {
  const model::WeightSource stored = model::open_weights_as_stored(options_.model);
  if (!text_) return model::prune_by_magnitude(architecture(), stored, pruning_.sparsity);
  const auto base = models_.load_base(device);
  const at::Tensor tokens =
      at::tensor(text_->tokens, at::kLong).view({text_->sequences, text_->context}).to(device);
  return model::prune(*base, stored, tokens, pruning_, done);
}

// All but what writing settles.
model::PruningRecord Pruner::recipe() const {
  model::PruningRecord record{.method = config::print(options_.method),
                              .sparsity = pruning_.sparsity,
                              .calibration = std::nullopt,
                              .base_digest = model::weights_digest(options_.model),
                              .weights_digest = {},
                              .zeros = {}};
  if (text_)
    record.calibration = {.sequences = text_->sequences,
                          .context_tokens = text_->context,
                          .seed = options_.seed,
                          .digest = digest_of(*text_),
                          .precision = config::print(options_.precision)};
  return record;
}

// In what the pruned base that is there is another than would be made, the file first; empty: in nothing.
std::string Pruner::difference() const {
  const fs::path there = options_.output;
  for (const char* name : {"config.json", "tokenizer.json"})
    if (!have_same(name, there, options_.model))
      return fmt::format("{}: found another one than in {}", (there / name).string(), options_.model);
  const model::PruningRecord found = model::read_pruning(there, architecture()).value();
  if (const auto all = model::differences(found, recipe()); !all.empty())
    return fmt::format("{}: {}", (there / model::pruning_file).string(), fmt::join(all, ", "));
  return model::lie_about_weights(there, architecture(), found);
}

bool Pruner::is_made() const {
  if (!is_pruned_base(options_.output)) return false;
  std::string found;
  try {
    found = difference();
  } catch (const DataError& error) {  // a record, or weights, that cannot be read
    if (!options_.replace) throw;
    return false;
  }
  if (found.empty() || options_.replace) return found.empty();
  throw ConfigError(fmt::format("{}; --replace prunes the base there anew", found));
}

PrunedBase Pruner::run(const c10::Device& device, const std::function<void()>& done) const {
  model::check_finite(options_.model, model::weight_specs(architecture()));
  return {.base = options_.model,
          .architecture = architecture(),
          .matrices = matrices(device, done),
          .record = recipe()};
}

}  // namespace comigs::finished
