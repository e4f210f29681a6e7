// comigs route: texts through the models that the users of a run ended with, token by token.
#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/layout.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/config/route.hpp"
#include "comigs/data/probes.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/checks.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/precision.hpp"
#include "comigs/results/stored_run.hpp"
#include "comigs/run/identity.hpp"
#include "comigs/train/evaluation.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

namespace fs = std::filesystem;

// What is settled before anything large is loaded.
struct Settled {
  config::Config config;  // as recorded, but for the folders that were given
  const federation::Method* method = nullptr;
  std::vector<adapter::UserModel> users;
  model::Architecture architecture;
  std::vector<data::Probe> probes;
};

config::Config recorded_configuration(const results::StoredRun& run, const config::Route& options) {
  const results::RunRecord& record = run.record();
  config::Config config = config::resolve(
      config::parse_recorded(record.identity.configuration, run.path().string() + ": configuration"),
      static_cast<std::int64_t>(record.identity.users.size()));
  if (!options.model.empty()) config.model.folder = options.model;
  if (!options.data.empty()) config.data.folder = options.data;
  return config;
}

// What was trained must be there.
void check_trained(const results::StoredRun& run, const Settled& settled) {
  if (settled.method->gate == adapter::Gate::none)
    throw ConfigError(fmt::format("{}: method '{}' has no experts, so there is nothing to route",
                                  run.path().string(), settled.method->name));
  if (run.record().rounds < settled.config.run.rounds)
    throw DataError(
        fmt::format("{}: round {} of {} is the last one there; models are stored when a run has finished",
                    run.path().string(), run.record().rounds, settled.config.run.rounds));
  std::int64_t experts = 1;
  for (const adapter::UserModel& user : settled.users) experts = std::max(experts, user.experts);
  if (run.record().shape.experts != experts)
    throw DataError(fmt::format("{}: arrays for {} experts a user, but its configuration has {}",
                                run.path().string(), run.record().shape.experts, experts));
}

// Memory for the models is taken only where the file is large enough to hold them.
void check_size(const results::StoredRun& run, const Settled& settled) {
  const auto file_bytes = static_cast<std::int64_t>(fs::file_size(run.path()));
  for (const adapter::UserModel& user : settled.users) {
    const std::int64_t numbers = adapter::Layout(settled.architecture, user).size();
    if (numbers > file_bytes / static_cast<std::int64_t>(sizeof(float)))
      throw DataError(
          fmt::format("{}: {} bytes, too few for the {} trained numbers of a user that its "
                      "configuration promises",
                      run.path().string(), file_bytes, numbers));
  }
}

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

std::vector<data::Probe> read_probes(const results::StoredRun& run, const Settled& settled,
                                     const config::Route& options) {
  if (!options.probes.empty()) {
    if (!options.data.empty()) spdlog::warn("without effect beside --probes: --data");
    data::ProbeFile file = data::read_probes(options.probes);
    if (!job::takes_vocabulary(file.vocabulary, settled.config.model.folder, settled.architecture))
      throw DataError(fmt::format(
          "{}: made with a tokeniser of {} entries, but the base model {} has a vocabulary of "
          "{}; make it with the base model's own tokeniser",
          options.probes, file.vocabulary, settled.config.model.folder, settled.architecture.vocabulary));
    return std::move(file.probes);
  }
  const std::string& folder = settled.config.data.folder;
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw DataError(
        fmt::format("{}: no such data-set folder; --data says where the run's data set is now, --probes "
                    "names other texts",
                    folder));
  const data::Manifest manifest = data::read_manifest(folder);
  if (manifest.digest != run.record().identity.data_digest)
    throw DataError(
        fmt::format("{}: not the data set of {}, the SHA-256 of whose manifest.json is {}; --data says where "
                    "that is, --probes names other texts",
                    folder, run.path().string(), printable(run.record().identity.data_digest)));
  return data::test_probes(manifest, options.tokens);
}

Settled settle(const results::StoredRun& run, const config::Route& options) {
  Settled settled;
  settled.config = recorded_configuration(run, options);
  settled.method = &federation::find_method(settled.config.method.name);
  federation::check_method(*settled.method, settled.config);
  settled.users = federation::user_models(*settled.method, settled.config.users);
  check_trained(run, settled);
  settled.architecture = read_base(run, settled.config.model.folder);
  check_size(run, settled);
  settled.probes = read_probes(run, settled, options);
  return settled;
}

// The model that a user ended with.
adapter::Parameters trained_parameters(const results::StoredRun& run, const Settled& settled,
                                       std::size_t user, const c10::Device& device) {
  adapter::Parameters parameters(settled.architecture, settled.users[user], device);
  const at::Tensor host = at::empty_like(parameters.values(), at::TensorOptions().device(at::kCPU));
  float* block = host.data_ptr<float>();
  run.read_weights(settled.config.run.rounds, user,
                   adapter::stored_parameters(settled.architecture, settled.users[user], block),
                   {block, static_cast<std::size_t>(host.numel())});
  parameters.values().copy_(host);
  return parameters;
}

// A text on its way through the models: what is written of it, and a line of the table.
struct Routed {
  results::TokenRouting tokens;
  std::vector<std::string> generalist_shares;  // mean gate weight of generalists, by user

  Routed(data::Probe probe, const results::RoundShape& shape)
      : tokens{.name = std::move(probe.name),
               .owner = std::move(probe.owner),
               .ids = std::move(probe.ids),
               .texts = std::move(probe.texts),
               .score = {}} {
    const std::int64_t by_token = shape.users * shape.layers * shape.experts;
    tokens.score.assign(tokens.ids.size() * static_cast<std::size_t>(by_token),
                        std::numeric_limits<float>::quiet_NaN());
  }

  void add(const at::Tensor& gate, std::int64_t user, std::int64_t generalists,
           const results::RoundShape& shape) {
    const at::Tensor score = at::from_blob(
        tokens.score.data(), {shape.users, gate.size(0), shape.layers, shape.experts}, at::kFloat);
    score[user].narrow(2, 0, gate.size(2)).copy_(gate);
    const double share = gate.narrow(2, 0, generalists).sum(2, false, at::kDouble).mean().item<double>();
    generalist_shares.push_back(fmt::format("{:.3f}", share));
  }
};

std::vector<Routed> route_all(const results::StoredRun& run, Settled& settled, const model::BaseModel& base) {
  const results::RoundShape& shape = run.record().shape;
  std::vector<Routed> texts;
  for (data::Probe& probe : settled.probes) texts.emplace_back(std::move(probe), shape);
  ProgressBar bar(static_cast<std::int64_t>(settled.users.size() * texts.size()), true);
  for (std::size_t user = 0; user < settled.users.size(); ++user) {
    const adapter::Parameters parameters = trained_parameters(run, settled, user, base.head().device());
    const auto generalists = static_cast<std::int64_t>(settled.users[user].generalists.size());
    for (Routed& text : texts) {
      text.add(train::gates(base, parameters, text.tokens.ids, settled.config.users[user].context_tokens),
               static_cast<std::int64_t>(user), generalists, shape);
      bar.advance(1, fmt::format("model of {}", printable(run.record().identity.users[user])));
    }
  }
  return texts;
}

void print_table(const std::vector<std::string>& users, const std::vector<Routed>& texts) {
  std::vector<std::string> head{"text", "tokens", "of user"};
  for (const std::string& user : users) head.push_back(printable(user));
  std::vector<std::vector<std::string>> rows;
  for (const auto& [tokens, shares] : texts) {
    rows.push_back({tokens.name, group_digits(static_cast<std::int64_t>(tokens.ids.size())),
                    tokens.owner.empty() ? "-" : printable(tokens.owner)});
    rows.back().insert(rows.back().end(), shares.begin(), shares.end());
  }
  print_out(format_table(head, rows));
}

void route_texts(const config::Route& options) {
  const Stopwatch watch;
  results::StoredRun run(options.run);
  Settled settled = settle(run, options);
  const c10::Device device = choose_device(options.device, options.threads, comm::place_alone());
  const model::Computation computation = job::computation(settled.config.run, device);
  const auto base = model::load_base_model(settled.config.model.folder, computation.stored, device,
                                           computation.computed);
  const std::string activations = model::name_of(computation.computed);
  if (const std::string& trained = run.record().identity.activations;
      !trained.empty() && trained != activations)
    spdlog::warn("computed in {}; the run was in {}", activations, trained);
  const std::vector<Routed> texts = route_all(run, settled, *base);
  io::check_mapped_files();
  std::vector<results::TokenRouting> tokens;
  for (const Routed& text : texts) tokens.push_back(text.tokens);
  comm::Interruption::finish_undisturbed();
  run.write_tokens(tokens);
  print_out("comigs route: {}, mean gate weight of generalists over tokens and layers, by whose model\n\n",
            settled.method->name);
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
