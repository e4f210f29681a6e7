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
#include "comigs/job/fit.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/precision.hpp"
#include "comigs/results/stored_run.hpp"
#include "comigs/run/identity.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

namespace fs = std::filesystem;

// What is settled before anything large is loaded.
struct Job {
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
void check_trained(const results::StoredRun& run, const Job& job) {
  if (job.method->gate == adapter::Gate::none)
    throw ConfigError(fmt::format("{}: method '{}' has no experts, so there is nothing to route",
                                  run.path().string(), job.method->name));
  if (run.record().rounds < job.config.run.rounds)
    throw DataError(
        fmt::format("{}: round {} of {} is the last one there; models are stored when a run has finished",
                    run.path().string(), run.record().rounds, job.config.run.rounds));
  std::int64_t experts = 1;
  for (const adapter::UserModel& user : job.users) experts = std::max(experts, user.experts);
  if (run.record().shape.experts != experts)
    throw DataError(fmt::format("{}: arrays for {} experts a user, but its configuration has {}",
                                run.path().string(), run.record().shape.experts, experts));
}

// Memory for the models is taken only where the file is large enough to hold them.
void check_size(const results::StoredRun& run, const Job& job) {
  const auto file_bytes = static_cast<std::int64_t>(fs::file_size(run.path()));
  for (const adapter::UserModel& user : job.users) {
    const std::int64_t numbers = adapter::Layout(job.architecture, user).size();
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

std::vector<data::Probe> read_probes(const results::StoredRun& run, const Job& job,
                                     const config::Route& options) {
  if (!options.probes.empty()) {
    if (!options.data.empty()) spdlog::warn("without effect beside --probes: --data");
    data::ProbeFile file = data::read_probes(options.probes);
    if (!job::fits(file.vocabulary, job.config.model.folder, job.architecture))
      throw DataError(
          fmt::format("{}: made with a tokeniser of {} entries, but the base model {} has a vocabulary of "
                      "{}; make it with the base model's own tokeniser",
                      options.probes, file.vocabulary, job.config.model.folder, job.architecture.vocabulary));
    return std::move(file.probes);
  }
  const std::string& folder = job.config.data.folder;
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

Job read_job(const results::StoredRun& run, const config::Route& options) {
  Job job;
  job.config = recorded_configuration(run, options);
  job.method = &federation::find_method(job.config.method.name);
  federation::check_method(*job.method, job.config);
  job.users = federation::user_models(*job.method, job.config.users);
  check_trained(run, job);
  job.architecture = read_base(run, job.config.model.folder);
  check_size(run, job);
  job.probes = read_probes(run, job, options);
  return job;
}

// The model that a user ended with.
adapter::Parameters trained_parameters(const results::StoredRun& run, const Job& job, std::size_t user,
                                       const c10::Device& device) {
  adapter::Parameters parameters(job.architecture, job.users[user], device);
  const at::Tensor host = at::empty_like(parameters.values(), at::TensorOptions().device(at::kCPU));
  float* block = host.data_ptr<float>();
  run.read_weights(job.config.run.rounds, user,
                   adapter::stored_parameters(job.architecture, job.users[user], block),
                   {block, static_cast<std::size_t>(host.numel())});
  parameters.values().copy_(host);
  return parameters;
}

// The gate weights of a text's tokens [n, L, E], in windows of the context that do not overlap.
at::Tensor gates(const model::BaseModel& base, const adapter::Parameters& parameters,
                 const std::vector<std::int64_t>& ids, std::int64_t context) {
  constexpr std::int64_t tokens_at_once = 4096;
  const at::NoGradGuard no_gradients;
  const adapter::UserModel& user = parameters.user_model();
  const auto count = static_cast<std::int64_t>(ids.size()), T = std::min(context, count),
             windows = (count + T - 1) / T, layers = base.architecture().layers;
  // What no router decides is weighted alike.
  const at::Tensor found =
      at::full({windows * T, layers, user.experts}, 1.0 / static_cast<double>(user.experts), at::kFloat);
  if (!user.routed()) return found.narrow(0, 0, count);
  const at::Tensor tokens = at::zeros({windows * T}, at::kLong);
  std::copy(ids.begin(), ids.end(), tokens.data_ptr<std::int64_t>());
  const at::Tensor rows = tokens.view({windows, T}).to(base.head().device());
  const std::int64_t step = std::max<std::int64_t>(tokens_at_once / T, 1);
  for (std::int64_t first = 0; first < windows; first += step) {
    const std::int64_t sequences = std::min(step, windows - first);
    const adapter::Forward forward = adapter::forward(base, rows.narrow(0, first, sequences), parameters);
    for (std::int64_t layer = 0; layer < layers; ++layer)
      found.narrow(0, first * T, sequences * T)
          .select(1, layer)
          .copy_(forward.routing[static_cast<std::size_t>(layer)].gate);
  }
  return found.narrow(0, 0, count);
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

std::vector<Routed> route_all(const results::StoredRun& run, Job& job, const model::BaseModel& base) {
  const results::RoundShape& shape = run.record().shape;
  std::vector<Routed> texts;
  for (data::Probe& probe : job.probes) texts.emplace_back(std::move(probe), shape);
  ProgressBar bar(static_cast<std::int64_t>(job.users.size() * texts.size()), true);
  for (std::size_t user = 0; user < job.users.size(); ++user) {
    const adapter::Parameters parameters = trained_parameters(run, job, user, base.head().device());
    const auto generalists = static_cast<std::int64_t>(job.users[user].generalists.size());
    for (Routed& text : texts) {
      text.add(gates(base, parameters, text.tokens.ids, job.config.users[user].context_tokens),
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
  Job job = read_job(run, options);
  const c10::Device device = choose_device(options.device, options.threads, comm::place_alone());
  const auto dtype = job::stored_type(job.config.run.precision);
  const auto base = model::load_base_model(job.config.model.folder, dtype, device);
  const std::string activations = model::name_of(model::activation_type(dtype, device));
  if (const std::string& trained = run.record().identity.activations;
      !trained.empty() && trained != activations)
    spdlog::warn("computed in {}; the run was in {}", activations, trained);
  const std::vector<Routed> texts = route_all(run, job, *base);
  io::check_mapped_files();
  std::vector<results::TokenRouting> tokens;
  for (const Routed& text : texts) tokens.push_back(text.tokens);
  comm::Interruption::finish_undisturbed();
  run.write_tokens(tokens);
  print_out("comigs route: {}, mean gate weight of generalists over tokens and layers, by whose model\n\n",
            job.method->name);
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
