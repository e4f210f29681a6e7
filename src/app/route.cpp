// comigs route: texts through the models that the users of a run ended with, token by token.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/route.hpp"
#include "comigs/data/probes.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/results/stored_run.hpp"
#include "comigs/run/trained_models.hpp"
#include "comigs/train/evaluation.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

std::vector<data::Probe> read_probes(const run::TrainedModels& models, const config::Route& options) {
  if (options.probes.empty())
    return data::test_probes(models.open_data(", --probes names other texts"), options.tokens);
  if (!options.data.empty()) spdlog::warn("without effect beside --probes: --data");
  return models.open_probes(options.probes);
}

// A text on its way through the models: what is written of it, and a line of the table.
struct Routed {
  results::TokenRouting tokens;
  std::vector<std::int64_t> begins;            // of its parts
  std::vector<std::int64_t> instruction;       // of each, where they are examples
  std::vector<std::string> generalist_shares;  // mean gate weight of generalists, by user

  Routed(data::Probe probe, const results::RoundShape& shape)
      : tokens{.name = std::move(probe.name),
               .owner = std::move(probe.owner),
               .ids = std::move(probe.ids),
               .texts = std::move(probe.texts),
               .score = {}},
        begins(std::move(probe.begins)),
        instruction(std::move(probe.instruction)) {
    const std::int64_t by_token = shape.users * shape.layers * shape.experts;
    tokens.score.assign(tokens.ids.size() * static_cast<std::size_t>(by_token),
                        std::numeric_limits<float>::quiet_NaN());
  }

  void add(const at::Tensor& gate, std::int64_t user, std::int64_t generalists,
           const results::RoundShape& shape) {
    const at::Tensor score = at::from_blob(
        tokens.score.data(), {shape.users, gate.size(0), shape.layers, shape.experts}, at::kFloat);
    score[user].narrow(2, 0, gate.size(2)).copy_(gate);
    const double share = gate.narrow(2, 0, generalists).sum(2, false, at::kDouble).nanmean().item<double>();
    generalist_shares.push_back(fmt::format("{:.3f}", share));
  }
};

std::vector<Routed> route_all(const run::TrainedModels& models, std::vector<data::Probe> probes,
                              const results::RoundShape& shape, const model::BaseModel& base) {
  std::vector<Routed> texts;
  for (data::Probe& probe : probes) texts.emplace_back(std::move(probe), shape);
  ProgressBar bar(static_cast<std::int64_t>(models.users().size() * texts.size()), true);
  for (std::size_t user = 0; user < models.users().size(); ++user) {
    const adapter::Parameters parameters = models.parameters(user, base.head().device());
    const auto generalists = static_cast<std::int64_t>(models.users()[user].generalists.size());
    for (Routed& text : texts) {
      text.add(train::gates(base, parameters, text.tokens.ids, text.begins, text.instruction,
                            models.config().users[user].context_tokens),
               static_cast<std::int64_t>(user), generalists, shape);
      bar.advance(1, fmt::format("model of {}", printable(models.names()[user])));
    }
  }
  return texts;
}

void print_table(const std::vector<std::string>& users, const std::vector<Routed>& texts) {
  std::vector<std::string> head{"text", "tokens", "of user"};
  for (const std::string& user : users) head.push_back(printable(user));
  std::vector<std::vector<std::string>> rows;
  for (const Routed& text : texts) {
    const results::TokenRouting& tokens = text.tokens;
    rows.push_back({tokens.name, group_digits(static_cast<std::int64_t>(tokens.ids.size())),
                    tokens.owner.empty() ? "-" : printable(tokens.owner)});
    rows.back().insert(rows.back().end(), text.generalist_shares.begin(), text.generalist_shares.end());
  }
  print_out(format_table(head, rows));
}

void route_texts(const config::Route& options) {
  const Stopwatch watch;
  results::StoredRun run(options.run);
  const run::TrainedModels models(run, {.model = options.model, .data = options.data});
  if (models.method().gate == adapter::Gate::none)
    throw ConfigError(fmt::format("{}: method '{}' has no experts, so there is nothing to route",
                                  run.path().string(), models.method().name));
  std::vector<data::Probe> probes = read_probes(models, options);
  const c10::Device device = choose_device(options.device, options.threads, comm::place_alone());
  const auto base = models.load_base(device);
  const std::vector<Routed> texts = route_all(models, std::move(probes), run.record().shape, *base);
  io::check_mapped_files();
  std::vector<results::TokenRouting> tokens;
  for (const Routed& text : texts) tokens.push_back(text.tokens);
  comm::Interruption::finish_undisturbed();
  run.write_tokens(tokens);
  print_out("comigs route: {}, mean gate weight of generalists over tokens and layers, by whose model\n\n",
            models.method().name);
  print_table(run.record().identity.users, texts);
  print_out("\ntokens: {} ({})\n", run.path().string(), format_duration(watch.seconds()));
}

}  // namespace

int route(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::route_help());
    return 0;
  }
  return run_alone("route", [&] {
    route_texts(config::parse_route(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
