// comigs generate: finished models continue texts.
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "chosen_models.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/generate.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/data/vocabulary.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/model/end_of_text.hpp"
#include "comigs/train/generation.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "json_text.hpp"

namespace comigs::app {

namespace {

namespace fs = std::filesystem;

// What one model made of one text.
struct Continuation {
  std::string model, prompt;  // names; of the base `model` is empty
  std::vector<std::int64_t> ids;
  bool has_ended = false;  // by a token that ends a text, which is the last
};

// Of a run its data set, whose tokeniser is the base's own. It can be done without, be it gone or another
// one.
std::optional<data::Manifest> find_data(const run::TrainedModels& models) {
  if (!models.is_of_run()) return std::nullopt;
  try {
    return models.open_data();
  } catch (const DataError&) {
    return std::nullopt;
  }
}

// As the base's files say, and as its data set ends documents: what a run's users have learnt.
std::vector<std::int64_t> find_stops(const run::TrainedModels& models,
                                     const std::optional<data::Manifest>& data) {
  std::vector<std::int64_t> stops = model::end_of_text(models.config().model.folder);
  if (data && data->end_of_text) stops.push_back(*data->end_of_text);
  return stops;
}

std::optional<data::Vocabulary> find_vocabulary(const run::TrainedModels& models,
                                                const std::optional<data::Manifest>& data) {
  const fs::path own = fs::path(models.config().model.folder) / "tokenizer.json";
  std::error_code error;
  if (fs::exists(own, error)) return std::optional<data::Vocabulary>(std::in_place, own);
  if (data) return std::optional<data::Vocabulary>(std::in_place, data->tokeniser);
  return std::nullopt;
}

void check_lengths(const run::TrainedModels& models, const std::vector<data::Probe>& prompts,
                   const config::Generate& options) {
  const std::int64_t positions = models.positions();
  for (const data::Probe& prompt : prompts) {
    const auto length = static_cast<std::int64_t>(prompt.ids.size());
    if (length + options.tokens > positions)
      throw DataError(
          fmt::format("{}: '{}' has {} tokens, to which --tokens {} are added, but the base model {} has {} "
                      "positions for them",
                      options.prompts, printable(prompt.name), length, options.tokens,
                      models.config().model.folder, positions));
  }
}

std::vector<Continuation> continue_all(const ChosenModels& chosen, const std::vector<data::Probe>& prompts,
                                       const train::GenerationOptions& how, const config::Generate& options,
                                       const c10::Device& device) {
  const run::TrainedModels& models = chosen.models;
  const auto base = models.load_base(device);
  const std::size_t all = chosen.chosen.size() + (options.with_base ? 1 : 0);
  ProgressBar bar(static_cast<std::int64_t>(all * prompts.size()), !options.json);
  std::vector<Continuation> found;
  const auto add = [&](const std::string& model, const adapter::Parameters& parameters) {
    for (const data::Probe& prompt : prompts) {
      std::vector<std::int64_t> ids = train::generate(*base, parameters, prompt.ids, how);
      const bool has_ended = std::ranges::find(how.stops, ids.back()) != how.stops.end();
      found.push_back({model, prompt.name, std::move(ids), has_ended});
      bar.advance(1, fmt::format("model of {}", printable(model)));
    }
  };
  if (options.with_base) add("", models.of_base(device));
  for (const std::size_t model : chosen.chosen) add(models.names()[model], models.parameters(model, device));
  return found;
}

// Without the token that ended it.
std::string text_of(const Continuation& one, const data::Vocabulary& vocabulary) {
  return vocabulary.text(std::span(one.ids).first(one.ids.size() - (one.has_ended ? 1 : 0)));
}

nlohmann::ordered_json as_json(const Continuation& one, const std::optional<data::Vocabulary>& vocabulary) {
  using Json = nlohmann::ordered_json;
  return {{"model", one.model.empty() ? Json() : Json(one.model)},
          {"prompt", one.prompt},
          {"ids", one.ids},
          {"ended", one.has_ended},
          {"text", vocabulary ? Json(text_of(one, *vocabulary)) : Json()}};
}

// What a model writes must not drive the terminal; its lines are lines.
std::string shown(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F; }, '?');
  for (std::size_t i = 0; i + 1 < text.size(); ++i)  // U+0080 to U+009F
    if (text[i] == '\xC2' && static_cast<unsigned char>(text[i + 1]) < 0xA0) text.replace(i, 2, "?");
  return text;
}

std::string as_text(const Continuation& one, const std::optional<data::Vocabulary>& vocabulary) {
  const std::string model = one.model.empty() ? "base model" : printable(one.model);
  const std::string text =
      vocabulary ? shown(text_of(one, *vocabulary)) : fmt::format("{}", fmt::join(one.ids, " "));
  return fmt::format("{}, after '{}', {} tokens{}:\n{}\n\n", model, printable(one.prompt), one.ids.size(),
                     one.has_ended ? " up to the text's end" : "", text);
}

void generate(const config::Generate& options) {
  const ChosenModels chosen(options.models);
  const run::TrainedModels& models = chosen.models;
  const std::vector<data::Probe> prompts = models.open_probes(options.prompts);
  check_lengths(models, prompts, options);
  const std::optional<data::Manifest> data = find_data(models);
  const std::optional<data::Vocabulary> vocabulary = find_vocabulary(models, data);
  const train::GenerationOptions how{.sampling = {.temperature = options.temperature,
                                                  .top_k = options.sample_top_k,
                                                  .top_p = options.sample_top_p,
                                                  .seed = options.seed},
                                     .tokens = options.tokens,
                                     .stops = find_stops(models, data)};
  const c10::Device device =
      choose_device(options.models.device, options.models.threads, comm::place_alone());
  const std::vector<Continuation> found = continue_all(chosen, prompts, how, options, device);
  io::check_mapped_files();
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Continuation& one : found) {
    if (options.json)
      rows.push_back(as_json(one, vocabulary));
    else
      print_out(as_text(one, vocabulary));
  }
  if (options.json) print_out(json_text({{"base", models.config().model.folder}, {"continuations", rows}}));
}

}  // namespace

int generate(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::generate_help());
    return 0;
  }
  return run_alone("generate", [&] {
    generate(config::parse_generate(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
