// comigs evaluate: perplexity of finished models on users' texts.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "chosen_models.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/evaluate.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/value.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/checks.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/train/evaluation.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "json_text.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

// One model on one user's texts.
struct Found {
  std::string model, data;  // names of users; of a base alone `model` is empty
  std::int64_t context_tokens = 0;
  Evaluation evaluation;
};

// The texts of one user, and how many tokens of a split of a run's own data the run evaluated (0: all).
struct Text {
  std::string name;
  data::TokenShard shard;
  std::int64_t tokens = 0;
};

const data::ShardDescription& split_of(const data::UserShards& shards, config::Split split) {
  return split == config::Split::train        ? shards.train
         : split == config::Split::validation ? shards.validation
                                              : shards.test;
}

// The run's own, unless another data set is named.
data::Manifest open_data(const run::TrainedModels& models, const config::Evaluate& options) {
  return options.data.empty() ? models.open_data() : data::read_manifest(options.data);
}

// The run's options for the users who are evaluated, by what was asked for.
config::Config settled(const run::TrainedModels& models, const config::Evaluate& options) {
  config::Config config = models.config();
  if (!options.data.empty()) config.data.folder = options.data;
  const std::int64_t positions = models.positions();
  if (options.context_tokens > positions)
    throw ConfigError(fmt::format("--context-tokens {}: the base model {} has {} positions for them",
                                  options.context_tokens, config.model.folder, positions));
  for (config::User& user : config.users) {
    if (!models.is_of_run()) user.context_tokens = std::min(user.context_tokens, positions);
    if (options.context_tokens > 0) user.context_tokens = options.context_tokens;
  }
  return config;
}

// A run evaluates the beginning of what its users trained on.
std::int64_t leading_tokens(const config::Config& config, const data::UserShards& shards, std::size_t user) {
  const std::int64_t leading = config.run.train_evaluation_tokens,
                     all = job::train_tokens(config.users[user], shards);
  return leading > 0 ? std::min(leading, all) : all;
}

std::vector<Text> open_texts(const config::Config& config, const data::Manifest& manifest,
                             const std::vector<std::size_t>& chosen, const config::Evaluate& options,
                             bool is_runs_own) {
  std::vector<Text> texts;
  for (std::size_t user = 0; user < manifest.users.size(); ++user) {
    const data::UserShards& shards = manifest.users[user];
    const data::ShardDescription& split = split_of(shards, options.split);
    data::require_tokens(split, 2, fmt::format("user {}", shards.name));
    for (const std::size_t model : chosen)
      job::check_examples(config.users[model].context_tokens, shards.name, split);
    std::int64_t tokens = options.tokens;
    if (tokens == 0 && is_runs_own && options.split == config::Split::train)
      tokens = leading_tokens(config, shards, user);
    texts.push_back({shards.name, data::TokenShard(split, manifest.vocabulary), tokens});
  }
  return texts;
}

std::vector<Found> evaluate_all(const ChosenModels& chosen, const config::Config& config,
                                const std::vector<Text>& texts, const config::Evaluate& options,
                                const c10::Device& device) {
  const run::TrainedModels& models = chosen.models;
  const auto base = models.load_base(device);
  ProgressBar bar(static_cast<std::int64_t>(chosen.chosen.size() * texts.size()), !options.json);
  std::vector<Found> found;
  for (const std::size_t model : chosen.chosen) {
    const adapter::Parameters parameters = models.parameters(model, device);
    const std::int64_t context = config.users[model].context_tokens,
                       sequences = options.micro_batch_sequences > 0
                                       ? options.micro_batch_sequences
                                       : models.evaluation_sequences(model, device);
    for (const Text& text : texts) {
      const train::SplitReport report =
          train::evaluate(*base, parameters, text.shard,
                          {.context = context, .sequences = sequences, .tokens = text.tokens, .stop = {}});
      found.push_back({models.names()[model], text.name, context, report.evaluation});
      bar.advance(1, fmt::format("texts of {}", printable(text.name)));
    }
  }
  return found;
}

std::string label(const std::string& model) { return model.empty() ? "base model" : printable(model); }

std::string as_table(const std::vector<Found>& found, const std::vector<Text>& texts) {
  std::vector<std::string> head{"texts of", "tokens"};
  std::vector<std::vector<std::string>> rows;
  for (const Text& text : texts) rows.push_back({printable(text.name)});
  for (std::size_t i = 0; i < found.size(); ++i) {
    std::vector<std::string>& row = rows[i % texts.size()];
    if (i % texts.size() == 0) head.push_back(label(found[i].model));
    if (i < texts.size()) row.push_back(group_digits(found[i].evaluation.tokens));
    row.push_back(format_perplexity(found[i].evaluation));
  }
  return format_table(head, rows);
}

// JSON has no infinity.
nlohmann::ordered_json finite(double number) {
  return std::isfinite(number) ? nlohmann::ordered_json(number) : nlohmann::ordered_json();
}

nlohmann::ordered_json as_json(const Found& found) {
  return {{"model", found.model.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(found.model)},
          {"texts", found.data},
          {"perplexity", finite(found.evaluation.perplexity())},
          {"loss", finite(found.evaluation.loss())},
          {"tokens", found.evaluation.tokens},
          {"context_tokens", found.context_tokens}};
}

nlohmann::ordered_json as_json(const std::vector<Found>& found, const ChosenModels& chosen,
                               const data::Manifest& manifest, const config::Evaluate& options) {
  using Json = nlohmann::ordered_json;
  Json rows = Json::array();
  for (const Found& one : found) rows.push_back(as_json(one));
  return {{"split", config::print(options.split)},
          {"data_set", manifest.name},
          {"base", chosen.models.config().model.folder},
          {"method", chosen.run ? Json(chosen.models.method().name) : Json()},
          {"evaluations", rows}};
}

std::string what(const ChosenModels& chosen) {
  return chosen.run ? chosen.models.method().name
                    : "base model " + printable(chosen.models.config().model.folder, 200);
}

void evaluate(const config::Evaluate& options) {
  const Stopwatch watch;
  const ChosenModels chosen(options.models);
  const run::TrainedModels& models = chosen.models;
  const config::Config config = settled(models, options);
  const data::Manifest manifest = open_data(models, options);
  job::check_base(config, manifest, models.architecture());
  const bool is_runs_own = chosen.run && manifest.digest == chosen.run->record().identity.data_digest;
  const std::vector<Text> texts = open_texts(config, manifest, chosen.chosen, options, is_runs_own);
  const c10::Device device =
      choose_device(options.models.device, options.models.threads, comm::place_alone());
  const std::vector<Found> found = evaluate_all(chosen, config, texts, options, device);
  io::check_mapped_files();
  print_out(
      options.json
          ? json_text(as_json(found, chosen, manifest, options))
          : fmt::format("comigs evaluate: {}, perplexity on the {} split of {}, by whose model ({})\n\n{}",
                        what(chosen), config::print(options.split), manifest.name,
                        format_duration(watch.seconds()), as_table(found, texts)));
}

}  // namespace

int evaluate(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::evaluate_help());
    return 0;
  }
  return run_alone("evaluate", [&] {
    evaluate(config::parse_evaluate(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
