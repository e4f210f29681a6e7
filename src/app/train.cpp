// comigs train: from a job file to results.h5.
#include <fmt/chrono.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <memory>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/version.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/comm/session.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/federation/collaboration.hpp"
#include "comigs/federation/fit.hpp"
#include "comigs/federation/local_work.hpp"
#include "comigs/federation/round_loop.hpp"
#include "comigs/federation/traffic.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/precision.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "frozen_base.hpp"
#include "job.hpp"
#include "recorder.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

// Where the results go. Throws ConfigError where something is in the way.
std::filesystem::path results_path(const config::Run& run) {
  const std::filesystem::path output = run.output, results = output / "results.h5";
  if (std::filesystem::exists(output) && !std::filesystem::is_directory(output))
    throw ConfigError(
        fmt::format("--output {}: there is a file of this name, expected a folder", output.string()));
  if (results::ResultsFile::exists(results))
    throw ConfigError(
        fmt::format("'{}' is there already and would be lost; choose another output folder or remove it",
                    results.string()));
  return results;
}

std::vector<std::int64_t> expert_tokens_of_users(const Job& job) {
  std::vector<std::int64_t> tokens;
  for (std::size_t user = 0; user < job.users.size(); ++user)
    tokens.push_back(federation::expert_tokens(job.config, job.manifest, user));
  return tokens;
}

UserDescription describe_user(const Job& job, std::size_t user) {
  const data::UserShards& shards = job.manifest.users[user];
  const model::UserModel& model = job.users[user];
  return {.name = shards.name,
          .host = {},
          .device = {},
          .experts = model.experts,
          .generalists = model.generalists,
          .lora_rank = model.experts > 0 ? model.lora_rank : 0,
          .top_k = model.top_k,
          .train_tokens = federation::train_tokens(job.config.users[user], shards),
          .validation_tokens = shards.validation.tokens,
          .test_tokens = shards.test.tokens};
}

// Collective: gathers what only each rank knows of itself.
results::RunDescription all_describe(const comm::Communicator& world, const Job& job,
                                     const comm::Placement& placement, const c10::Device& device) {
  const auto now = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  const std::int64_t evaluated = job.config.run.train_evaluation_tokens;
  results::RunDescription run{
      .title = fmt::format("{} on {}", job.method->name, job.manifest.name),
      .program_version = program_version,
      .git_commit = git_commit,
      .created = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now)),
      .configuration = config::echo(job.config),
      .method = job.method->name,
      .data_set = job.manifest.name,
      .data_digest = job.manifest.digest,
      .base_model = job.config.model.folder,
      .base_digest = world.is_first() ? model::weights_digest(job.config.model.folder) : std::string(),
      .seed = static_cast<std::int64_t>(job.config.run.seed),
      .library_versions = {fmt::format("LibTorch {}", TORCH_VERSION), comm::library_version()},
      .train_tokens_evaluated = evaluated > 0
                                    ? fmt::format("the first {} tokens of the training split", evaluated)
                                    : "the whole training split",
      .users = {},
      .layers = job.architecture.layers};
  const std::vector<std::string> hosts = world.all_gather(placement.host),
                                 devices = world.all_gather(model::describe(device));
  for (std::size_t user = 0; user < job.users.size(); ++user) {
    run.users.push_back(describe_user(job, user));
    run.users.back().host = hosts[user];
    run.users.back().device = devices[user];
  }
  return run;
}

std::string precision_words(config::Precision precision, const c10::Device& device) {
  const auto stored = federation::stored_type(precision);
  if (stored == at::kFloat) return "float32";
  return model::activation_type(stored, device) == stored ? "bf16" : "bf16, computed in float32";
}

void print_plan(const Job& job, const results::RunDescription& run, const c10::Device& device,
                const std::vector<std::int64_t>& trainable) {
  const auto count = [](std::size_t n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  };
  fmt::print("comigs {}: {}, {}, {}, seed {}\n", program_version, run.title, count(run.users.size(), "user"),
             count(static_cast<std::size_t>(job.config.run.rounds), "round"), run.seed);
  fmt::print("base {}: {}, {} layers, width {}, vocabulary {}, {}\n\n", run.base_model,
             job.architecture.family, job.architecture.layers, job.architecture.width,
             job.architecture.vocabulary, precision_words(job.config.run.precision, device));
  std::vector<std::vector<std::string>> rows;
  for (std::size_t u = 0; u < run.users.size(); ++u) {
    const UserDescription& user = run.users[u];
    rows.push_back({user.name, fmt::format("{} ({} shared)", user.experts, user.generalists.size()),
                    group_digits(trainable[u]), group_digits(user.train_tokens),
                    group_digits(user.validation_tokens), group_digits(user.test_tokens),
                    fmt::format("{}: {}", user.host, user.device)});
  }
  fmt::print(
      "{}",
      format_table({"user", "experts", "trainable", "train tokens", "validation", "test", "device"}, rows));
  fmt::print("\n");
}

bool stores_weights(const config::Run& run, std::int64_t round) {
  return round == run.rounds || (run.weights_every > 0 && round % run.weights_every == 0);
}

void print(const comm::Communicator& world, const std::string& text) {
  if (!world.is_first()) return;
  fmt::print("{}", text);
  std::fflush(stdout);
}

// The rounds, with what a person sees of them.
void all_run(const comm::Communicator& world, const Job& job, federation::RoundLoop& loop,
             train::LocalTrainer& trainer, const model::Parameters& parameters, Recorder& recorder,
             const std::vector<UserDescription>& users) {
  const config::Run& run = job.config.run;
  const config::User& user = job.config.users[static_cast<std::size_t>(world.rank())];
  print(world, round_head(users));
  const std::vector<UserRound> start =
      recorder.all_write(loop.all_start(), stores_weights(run, 0) ? &parameters : nullptr);
  print(world, round_line(0, run.rounds, start, 0));
  std::int64_t steps = 0, current = 0;
  for (std::int64_t round = 1; round <= run.rounds; ++round) steps += trainer.steps_in_round(round);
  ProgressBar bar(steps, world.is_first());
  trainer.observe([&](train::Phase phase, const data::Batch&, const train::StepLosses&) {
    bar.advance(1, fmt::format("round {}/{}: {}", current, run.rounds,
                               phase == train::Phase::experts ? "experts" : "routers"));
  });
  std::vector<UserRound> rows = start;
  for (current = 1; current <= run.rounds; ++current) {
    const UserRound record = loop.all_round(current);
    rows = recorder.all_write(record, stores_weights(run, current) ? &parameters : nullptr);
    bar.clear();
    const std::int64_t trained = trainer.steps_in_round(current) * user.batch_sequences * user.context_tokens;
    print(world, round_line(current, run.rounds, rows, world.all_sum(trained)));
  }
  print(world, "\n" + summary(users, start, rows));
}

// With the user's micro-batches as they fit its memory on its device.
config::Config fitted(const Job& job, std::size_t user, const c10::Device& device) {
  config::Config config = job.config;
  config.users[user].micro_batch_sequences =
      federation::micro_batch_sequences(job.config, user, job.architecture, job.users[user], device);
  return config;
}

void all_train(const comm::Communicator& world, const std::vector<std::string>& arguments) {
  const Stopwatch watch;
  // 1. What is to be done, the same on every rank.
  const Job job = comm::all_agree(world, [&] { return read_job(arguments, world.size()); });
  const std::filesystem::path path = comm::all_agree(world, [&] { return results_path(job.config.run); });
  all_compare(world, job);
  const auto user = static_cast<std::size_t>(world.rank());
  // 2. Where it is done.
  const comm::Placement placement = comm::all_place(world);
  const c10::Device device = comm::all_agree(
      world, [&] { return choose_device(job.config.run.device, job.config.run.threads, placement); });
  const config::Config config = comm::all_agree(world, [&] { return fitted(job, user, device); });
  // 3. The frozen base and this user's data.
  const FrozenBase base(world, job.config.run, job.config.model.folder, job.architecture, device);
  const auto shards =
      comm::all_agree(world, [&] { return federation::open_user(job.config, job.manifest, user); });
  const auto texts = comm::all_agree(
      world, [&] { return federation::texts(*job.method, job.config, job.manifest, user, shards); });
  // 4. What is trained, and what becomes of what is shared.
  model::Parameters parameters(job.architecture, job.users[user], device);
  parameters.initialise(job.config.run.seed, static_cast<std::int64_t>(user));
  train::LocalTrainer trainer(base.model(), parameters, texts,
                              federation::local_plan(*job.method, config, user));
  const std::unique_ptr<federation::Aggregation> aggregation = federation::all_make_aggregation(
      {.world = world,
       .method = *job.method,
       .averaging = job.config.method.averaging,
       .pruning_strength = job.config.method.pruning_strength,
       .users = job.users,
       .tokens = expert_tokens_of_users(job),
       .parameters = parameters,
       .memory = device.is_cuda() ? comm::Memory::device : comm::Memory::host,
       .sums = federation::sums(job.config.run),
       .validation_loss =
           federation::validation_loss(config, base.model(), parameters, shards.validation, user)});
  trainer.exchange_gradients(aggregation->exchange());
  federation::RoundLoop loop(world, config, base.model(), shards, parameters, trainer, *aggregation);
  // 5. Where it is written.
  const results::RunDescription run = all_describe(world, job, placement, device);
  Recorder recorder(world, path, run, job.architecture, job.users);
  const std::int64_t own = parameters.values().numel();
  const std::vector<std::int64_t> trainable = world.all_gather(std::span(&own, 1));
  if (world.is_first()) print_plan(job, run, device, trainable);
  // 6. The rounds.
  all_run(world, job, loop, trainer, parameters, recorder, run.users);
  print(world,
        fmt::format("\nresults: {} ({} in all)\n", path.string(), format_duration(watch.seconds())));
}

}  // namespace

int train(int& argc, char**& argv, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    fmt::print("{}", config::help());
    return 0;
  }
  return run_with_mpi(argc, argv, [&](const comm::Communicator& world) { all_train(world, arguments); });
}

}  // namespace comigs::app
