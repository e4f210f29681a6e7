// comigs prune: a base model with zeros in the linear maps of its blocks.
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/prune.hpp"
#include "comigs/config/value.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/checks.hpp"
#include "comigs/model/pruned_model.hpp"
#include "comigs/run/pruned_base.hpp"
#include "comigs/run/trained_models.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

model::Pruning pruning_of(const config::Prune& options) {
  const auto method = [&] {
    switch (options.method) {
      case config::PruningMethod::magnitude:
        return model::PruningMethod::magnitude;
      case config::PruningMethod::wanda:
        return model::PruningMethod::wanda;
      case config::PruningMethod::sparsegpt:
        return model::PruningMethod::sparsegpt;
    }
    throw std::logic_error("no such pruning method");
  };
  return {.method = method(),
          .sparsity = {.share = options.sparsity.share.value_or(0.0),
                       .zeros = options.pattern.zeros,
                       .of = options.pattern.of}};
}

// "3 zeros of 4 (75 %)".
std::string words(const model::Sparsity& sparsity) {
  return sparsity.of > 0
             ? fmt::format("{} zeros of {} ({:.4g} %)", sparsity.zeros, sparsity.of,
                           100.0 * static_cast<double>(sparsity.zeros) / static_cast<double>(sparsity.of))
             : fmt::format("{:.4g} % zeros", 100.0 * sparsity.share);
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

// Text of the base corpus in the base model's tokens; nothing where the method looks at none.
std::optional<data::Batch> calibration_text(const config::Prune& options, const run::TrainedModels& models) {
  if (options.method == config::PruningMethod::magnitude) {
    if (!options.data.empty()) spdlog::warn("--data has no effect with --method magnitude: it needs no text");
    return std::nullopt;
  }
  config::Config config = models.config();
  config.data.folder = options.data;
  config.users.front().context_tokens = context_of(options, models.architecture());
  const data::Manifest manifest = data::read_manifest(options.data);
  job::check_base(config, manifest, models.architecture());
  return run::calibration_batch(options, manifest, config.users.front().context_tokens);
}

std::map<std::string, at::Tensor> pruned_matrices(const config::Prune& options,
                                                  const run::TrainedModels& models,
                                                  std::optional<data::Batch>& text,
                                                  const c10::Device& device) {
  const model::Pruning pruning = pruning_of(options);
  const model::WeightSource stored = model::open_weights_as_stored(options.model);
  if (!text) return model::prune_by_magnitude(models.architecture(), stored, pruning.sparsity);
  const auto base = models.load_base(device);
  const at::Tensor tokens =
      at::from_blob(text->tokens.data(), {text->sequences, text->context}, at::kLong).to(device);
  ProgressBar bar(models.architecture().layers, true);
  return model::prune(*base, stored, tokens, pruning, [&] { bar.advance(1, "layer by layer"); });
}

void print_found(const config::Prune& options, const run::PrunedBase& pruned, const Stopwatch& watch) {
  const model::PruningRecord& record = pruned.record;
  print_out("comigs prune: {}, {}, {}", printable(options.model, 200), record.method, words(record.sparsity));
  if (record.calibration)
    print_out(", on {} x {} tokens", record.calibration->sequences, record.calibration->context_tokens);
  print_out("\n{:.4f} % of the numbers of {} matrices are 0\n",
            100.0 * record.share_of_zeros(pruned.architecture), record.zeros.size());
  print_out("base model: {} ({})\n", options.output, format_duration(watch.seconds()));
}

void prune(const config::Prune& options) {
  const Stopwatch watch;
  run::check_pruned_output(options.output);
  const run::TrainedModels models(options.model, options.precision);
  const model::Pruning pruning = pruning_of(options);
  check_pattern(pruning.sparsity, options.model, models.architecture());
  std::optional<data::Batch> text = calibration_text(options, models);
  const c10::Device device = choose_device(options.device, options.threads, comm::place_alone());
  model::check_finite(options.model, model::weight_specs(models.architecture()));
  run::PrunedBase pruned{.base = options.model,
                         .architecture = models.architecture(),
                         .matrices = pruned_matrices(options, models, text, device),
                         .record = {.method = config::print(options.method),
                                    .sparsity = pruning.sparsity,
                                    .calibration = std::nullopt,
                                    .base_digest = model::weights_digest(options.model),
                                    .weights_digest = {},
                                    .zeros = {}}};
  if (text)
    pruned.record.calibration = {.sequences = text->sequences,
                                 .context_tokens = text->context,
                                 .seed = options.seed,
                                 .digest = run::digest_of(*text)};
  io::check_mapped_files();
  comm::Interruption::finish_undisturbed();
  run::write_pruned_base(options.output, pruned);
  print_found(options, pruned, watch);
}

}  // namespace

int prune(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::prune_help());
    return 0;
  }
  return run_alone("prune", [&] {
    prune(config::parse_prune(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
