#include "comigs/finished/continuations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <span>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/model/end_of_text.hpp"

namespace comigs::finished {

namespace {

namespace fs = std::filesystem;

// Of a run its data set, whose tokeniser is the base's own. It can be done without, be it gone or another
// one.
std::optional<data::Manifest> find_data(const TrainedModels& models) {
  if (!models.is_of_run()) return std::nullopt;
  try {
    return models.open_data();
  } catch (const DataError&) {
    return std::nullopt;
  }
}

// As the base's files say, and as its data set ends documents: what a run's users have learnt.
std::vector<std::int64_t> find_stops(const TrainedModels& models, const std::optional<data::Manifest>& data) {
  std::vector<std::int64_t> stops = model::end_of_text(models.config().model.folder);
  if (data && data->end_of_text) stops.push_back(*data->end_of_text);
  return stops;
}

std::optional<data::Vocabulary> find_vocabulary(const TrainedModels& models,
                                                const std::optional<data::Manifest>& data) {
  const fs::path own = fs::path(models.config().model.folder) / "tokenizer.json";
  std::error_code error;
  if (fs::exists(own, error)) return std::optional<data::Vocabulary>(std::in_place, own);
  if (data) return std::optional<data::Vocabulary>(std::in_place, data->tokeniser);
  return std::nullopt;
}

}  // namespace

Continuations::Continuations(const config::Generate& options)
    : chosen_(options.models),
      prompts_(chosen_.models.open_probes(options.prompts)),
      with_base_(options.with_base) {
  check_lengths(options);
  const std::optional<data::Manifest> data = find_data(chosen_.models);
  vocabulary_ = find_vocabulary(chosen_.models, data);
  how_ = {.sampling = {.temperature = options.temperature,
                       .top_k = options.sample_top_k,
                       .top_p = options.sample_top_p,
                       .seed = options.seed},
          .tokens = options.tokens,
          .stops = find_stops(chosen_.models, data)};
}

void Continuations::check_lengths(const config::Generate& options) const {
  const std::int64_t positions = models().positions();
  for (const data::Probe& prompt : prompts_) {
    const auto length = static_cast<std::int64_t>(prompt.ids.size());
    if (length + options.tokens > positions)
      throw DataError(
          fmt::format("{}: '{}' has {} tokens, to which --tokens {} are added, but the base model {} has {} "
                      "positions for them",
                      options.prompts, printable(prompt.name), length, options.tokens,
                      models().config().model.folder, positions));
  }
}

std::int64_t Continuations::count() const {
  return static_cast<std::int64_t>((chosen_.chosen.size() + (with_base_ ? 1 : 0)) * prompts_.size());
}

std::vector<Continuation> Continuations::run(const c10::Device& device,
                                             const std::function<void(const std::string&)>& done) const {
  const auto base = models().load_base(device);
  std::vector<Continuation> found;
  const auto add = [&](const std::string& model, const adapter::Parameters& parameters) {
    for (const data::Probe& prompt : prompts_) {
      std::vector<std::int64_t> ids = train::generate(*base, parameters, prompt.ids, how_);
      const bool has_ended = std::ranges::find(how_.stops, ids.back()) != how_.stops.end();
      found.push_back({model, prompt.name, std::move(ids), has_ended});
      done(model);
    }
  };
  if (with_base_) add("", models().of_base(device));
  for (const std::size_t model : chosen_.chosen)
    add(models().names()[model], models().parameters(model, device));
  return found;
}

std::optional<std::string> Continuations::text_of(const Continuation& one) const {
  if (!vocabulary_) return std::nullopt;
  return vocabulary_->text(std::span(one.ids).first(one.ids.size() - (one.has_ended ? 1 : 0)));
}

}  // namespace comigs::finished
