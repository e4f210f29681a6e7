// comigs evaluate: perplexity of finished models on users' texts.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/value.hpp"
#include "comigs/finished/evaluations.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/device_choice.hpp"
#include "command.hpp"
#include "json_text.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

using finished::ModelEvaluation;

std::string label(const std::string& model) { return model.empty() ? "base model" : printable(model); }

std::string as_table(const std::vector<ModelEvaluation>& found, std::size_t texts) {
  std::vector<std::string> head{"texts of", "tokens"};
  std::vector<std::vector<std::string>> rows;
  for (std::size_t text = 0; text < texts; ++text) rows.push_back({printable(found[text].texts)});
  for (std::size_t i = 0; i < found.size(); ++i) {
    std::vector<std::string>& row = rows[i % texts];
    if (i % texts == 0) head.push_back(label(found[i].model));
    if (i < texts) row.push_back(group_digits(found[i].evaluation.tokens));
    row.push_back(format_perplexity(found[i].evaluation));
  }
  return format_table(head, rows);
}

// JSON has no infinity.
nlohmann::ordered_json finite(double number) {
  return std::isfinite(number) ? nlohmann::ordered_json(number) : nlohmann::ordered_json();
}

nlohmann::ordered_json as_json(const ModelEvaluation& found) {
  return {{"model", found.model.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(found.model)},
          {"texts", found.texts},
          {"perplexity", finite(found.evaluation.perplexity())},
          {"loss", finite(found.evaluation.loss())},
          {"tokens", found.evaluation.tokens},
          {"context_tokens", found.context_tokens}};
}

nlohmann::ordered_json as_json(const std::vector<ModelEvaluation>& found,
                               const finished::Evaluations& evaluations, config::Split split) {
  using Json = nlohmann::ordered_json;
  const finished::ChosenModels& chosen = evaluations.models();
  Json rows = Json::array();
  for (const ModelEvaluation& one : found) rows.push_back(as_json(one));
  return {{"split", config::print(split)},
          {"data_set", evaluations.data_set().name},
          {"base", chosen.models.config().model.folder},
          {"method", chosen.run ? Json(chosen.models.method().name) : Json()},
          {"evaluations", rows}};
}

std::string what(const finished::ChosenModels& chosen) {
  return chosen.run ? chosen.models.method().name
                    : "base model " + printable(chosen.models.config().model.folder, 200);
}

void evaluate(const config::Evaluate& options) {
  const Stopwatch watch;
  const finished::Evaluations evaluations(options);
  const c10::Device device =
      job::choose_device(options.models.device, options.models.threads, comm::place_alone());
  ProgressBar bar(evaluations.count(), !options.json);
  const std::vector<ModelEvaluation> found = evaluations.run(
      device, [&](const std::string& text) { bar.advance(1, fmt::format("texts of {}", printable(text))); });
  bar.clear();
  io::check_mapped_files();
  print_out(
      options.json
          ? json_text(as_json(found, evaluations, options.split))
          : fmt::format("comigs evaluate: {}, perplexity on the {} split of {}, by whose model ({})\n\n{}",
                        what(evaluations.models()), config::print(options.split), evaluations.data_set().name,
                        format_duration(watch.seconds()), as_table(found, evaluations.texts())));
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
