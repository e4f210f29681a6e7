// comigs train: from a job file to results.h5.
#include <fmt/chrono.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "checkpointer.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/version.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/comm/session.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/federation/collaboration.hpp"
#include "comigs/federation/fit.hpp"
#include "comigs/federation/local_work.hpp"
#include "comigs/federation/round_loop.hpp"
#include "comigs/federation/traffic.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/precision.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "frozen_base.hpp"
#include "identity.hpp"
#include "job.hpp"
#include "output_folder.hpp"
#include "recorder.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

// Where the results go. Throws ConfigError where something is in the way.
std::filesystem::path results_path(const config::Run& run) {
  check_output(run.output);
  const std::filesystem::path results = std::filesystem::path(run.output) / "results.h5";
  if (run.resume == config::Resume::never && results::ResultsFile::exists(results))
    throw ConfigError(
        fmt::format("'{}' is there already and would be lost; choose another output folder, remove "
                    "it, or go on with it by --resume auto",
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
  const adapter::UserModel& model = job.users[user];
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

// What is computed beside the frozen weights.
std::string activations(config::Precision precision, const c10::Device& device) {
  return model::name_of(model::activation_type(federation::stored_type(precision), device));
}

// Collective. Tells once where users compute on unlike processors or with unlike libraries.
void all_tell_unlike(const comm::Communicator& world, const std::string& own) {
  const std::vector<std::string> found = world.all_gather(own);
  std::vector<std::string> unlike;
  for (std::size_t rank = 1; rank < found.size(); ++rank)
    if (found[rank] != found[0])
      unlike.push_back(fmt::format("{} on {}", world.name_of(static_cast<int>(rank)), found[rank]));
  if (world.is_first() && !unlike.empty())
    spdlog::warn("unlike processors: {}, the others on {}; with other users on them the last bits may differ",
                 fmt::join(unlike, ", "), found[0]);
}

// Collective: gathers what only each rank knows of itself. `config` is as fitted to the user's memory.
results::RunDescription all_describe(const comm::Communicator& world, const Job& job,
                                     const config::Config& config, const comm::Placement& placement,
                                     const c10::Device& device, const std::string& base_digest) {
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
      .base_digest = base_digest,
      .base_architecture = model::config_json(job.architecture),
      .activations = activations(job.config.run.precision, device),
      .sequences_at_a_time = {},
      .seed = static_cast<std::int64_t>(job.config.run.seed),
      .library_versions = {fmt::format("LibTorch {}", TORCH_VERSION), comm::library_version()},
      .computed_by = {},
      .train_tokens_evaluated = evaluated > 0
                                    ? fmt::format("the first {} tokens of the training split", evaluated)
                                    : "the whole training split",
      .users = {},
      .layers = job.architecture.layers,
      .rounds = job.config.run.rounds};
  const std::string processor = model::processor();
  all_tell_unlike(world, fmt::format("{}, {}", processor, fmt::join(run.library_versions, ", ")));
  const std::vector<std::string> hosts = world.all_gather(placement.host),
                                 devices = world.all_gather(model::describe(device)),
                                 on = world.all_gather(model::describe(device) + ", " + processor);
  const std::int64_t sequences = config.users[static_cast<std::size_t>(world.rank())].sequences_at_a_time();
  run.sequences_at_a_time = fmt::format("{}", fmt::join(world.all_gather(std::span(&sequences, 1)), ", "));
  run.computed_by = computed_by(run.library_versions, on);
  for (std::size_t user = 0; user < job.users.size(); ++user) {
    run.users.push_back(describe_user(job, user));
    run.users.back().host = hosts[user];
    run.users.back().device = devices[user];
  }
  return run;
}

std::string precision_words(config::Precision precision, const std::string& activations) {
  const std::string stored = model::name_of(federation::stored_type(precision));
  return activations == stored ? stored : fmt::format("{}, computed in {}", stored, activations);
}

void print_plan(const Job& job, const results::RunDescription& run,
                const std::vector<std::int64_t>& trainable) {
  const auto count = [](std::size_t n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  };
  print_out("comigs {}: {}, {}, {}, seed {}\n", program_version, run.title, count(run.users.size(), "user"),
            count(static_cast<std::size_t>(job.config.run.rounds), "round"), run.seed);
  print_out("base {}: {}, {} layers, width {}, vocabulary {}, {}\n\n", run.base_model,
            job.architecture.family, job.architecture.layers, job.architecture.width,
            job.architecture.vocabulary, precision_words(job.config.run.precision, run.activations));
  std::vector<std::vector<std::string>> rows;
  for (std::size_t u = 0; u < run.users.size(); ++u) {
    const UserDescription& user = run.users[u];
    rows.push_back({user.name, fmt::format("{} ({} shared)", user.experts, user.generalists.size()),
                    group_digits(trainable[u]), group_digits(user.train_tokens),
                    group_digits(user.validation_tokens), group_digits(user.test_tokens),
                    fmt::format("{}: {}", user.host, user.device)});
  }
  print_out(
      format_table({"user", "experts", "trainable", "train tokens", "validation", "test", "device"}, rows));
  print_out("\n");
}

bool stores_weights(const config::Run& run, std::int64_t round) {
  return round == run.rounds || (run.weights_every > 0 && round % run.weights_every == 0);
}

void print(const comm::Communicator& world, const std::string& text) {
  if (!world.is_first()) return;
  print_out(text);
}

// What the rounds are run with.
struct Run {
  const comm::Communicator& world;
  const Job& job;
  const std::vector<UserDescription>& users;
  const adapter::Parameters& parameters;
  train::LocalTrainer& trainer;
  federation::RoundLoop& loop;
  Recorder& recorder;
  Checkpointer& checkpointer;
};

std::vector<UserRound> all_write(const Run& run, RoundProgress& progress, const UserRound& start) {
  const config::Run& options = run.job.config.run;
  UserRound& record = progress.record;
  const bool due = record.round > 0 && record.round < options.rounds && options.checkpoint_every > 0 &&
                   record.round % options.checkpoint_every == 0;
  if (due) {
    record.seconds.checkpoint = 0.0;
    const SecondsInto checkpoint(record.seconds.checkpoint), total(record.seconds.total);
    run.checkpointer.all_write(progress, start);
  }
  return run.recorder.all_write(record, stores_weights(options, record.round) ? &run.parameters : nullptr);
}

// From where `progress` stands to the end, with what a person sees of it.
void all_run(const Run& run, RoundProgress& progress, UserRound& start) {
  const std::int64_t rounds = run.job.config.run.rounds;
  const config::User& user = run.job.config.users[static_cast<std::size_t>(run.world.rank())];
  print(run.world, round_head(run.users));
  std::int64_t steps = 0;
  for (std::int64_t round = std::max<std::int64_t>(progress.record.round, 1); round <= rounds; ++round)
    steps += run.trainer.steps_in_round(round);
  ProgressBar bar(steps, run.world.is_first());
  run.trainer.observe([&](train::Phase phase, const data::Batch&, const train::StepLosses&) {
    bar.advance(1, fmt::format("round {}/{}: {}", progress.record.round, rounds,
                               phase == train::Phase::experts ? "experts" : "routers"));
  });
  for (;; progress.begin_next()) {
    const std::int64_t round = progress.record.round;
    run.loop.all_finish_round(progress);
    comm::all_agree(run.world, io::check_mapped_files);
    if (round == 0) start = progress.record;
    const std::vector<UserRound> rows = all_write(run, progress, start);
    bar.clear();
    const std::int64_t sequences = round > 0 ? run.trainer.steps_in_round(round) * user.batch_sequences : 0;
    print(run.world, round_line(round, rounds, rows, run.world.all_sum(sequences * user.context_tokens)));
    if (round < rounds) continue;
    print(run.world, "\n" + summary(run.users, run.recorder.all_gather(start), rows));
    break;
  }
  run.checkpointer.all_remove();
}

// Writes down where an interrupted run stands, and says how it can go on.
void all_leave(const Run& run, const RoundProgress& progress, const UserRound& start,
               const std::string& reason) {
  const std::int64_t round = progress.record.round;
  comm::all_agree(run.world, io::check_mapped_files);
  if (round > 0) run.checkpointer.all_write(progress, start);
  if (run.world.is_first())
    spdlog::warn("stopped by {} in round {} of {}{}; the same command with --resume auto goes on from there",
                 reason, round, run.job.config.run.rounds, round > 0 ? ", checkpoint written" : "");
}

// With the user's micro-batches as they fit its memory on its device.
config::Config fitted(const Job& job, std::size_t user, const c10::Device& device) {
  const auto fit = [&](std::size_t u) {
    return federation::micro_batch_sequences(job.config, u, job.architecture, job.users[u], device);
  };
  config::Config config = job.config;
  try {
    config.users[user].micro_batch_sequences = fit(user);
  } catch (const ConfigError&) {
    // All ranks with too little name the first such user, so that there is one message.
    for (std::size_t u = 0; u < user; ++u) (void)fit(u);
    throw;
  }
  return config;
}

// As far as it can be read: what cannot is told of later, by all ranks together.
Start read_start(const std::vector<std::string>& arguments) {
  Start start;
  (void)comm::capture([&] {
    const config::Layered settings = config::parse(arguments);
    start.patience_seconds = config::patience(settings);
    for (const data::UserShards& user : data::read_manifest(config::data_folder(settings)).users)
      start.users.push_back(user.name);
  });
  return start;
}

// The rounds, from where an interrupted run stands or from the first, to the end or to where this one is.
void all_go_on(const Run& run, const comm::Interruption& interruption) {
  RoundProgress progress;
  UserRound start;
  if (run.job.config.run.resume == config::Resume::automatic)
    if (const std::optional<results::UserState> state =
            run.checkpointer.all_restore(run.recorder.recorded())) {
      progress = state->progress;
      start = state->start;
      print(run.world, fmt::format("going on in round {}\n", progress.record.round));
    }
  try {
    all_run(run, progress, start);
  } catch (const PeerError& error) {
    if (error.exit_code() == ExitCode::interrupted) {
      all_leave(run, progress, start, interruption.all_reason());
    } else {
      run.recorder.discard_empty();
    }
    throw;
  }
}

void all_train(const comm::Communicator& world, comm::Interruption& interruption,
               const std::vector<std::string>& arguments) {
  const Stopwatch watch;
  // 1. What is to be done, the same on every rank.
  const Job job = comm::all_agree(world, [&] { return read_job(arguments, world.size()); });
  const std::filesystem::path path = comm::all_agree(world, [&] { return results_path(job.config.run); });
  const auto user = static_cast<std::size_t>(world.rank());
  // 2. Where it is done.
  const comm::Placement placement = comm::all_place(world);
  const c10::Device device = comm::all_agree(
      world, [&] { return choose_device(job.config.run.device, job.config.run.threads, placement); });
  const config::Config config = comm::all_agree(world, [&] { return fitted(job, user, device); });
  std::optional<OutputFolder> output;
  comm::all_agree(world, [&] {
    if (world.is_first()) output.emplace(job.config.run.output);
  });
  const io::FolderLock* const held = output ? &output->lock() : nullptr;
  // 3. The frozen base and this user's data, the same for all ranks.
  const WeightsFound found = all_find_weights(world, job.config.model.folder);
  const results::RunDescription description =
      all_describe(world, job, config, placement, device, found.digest);
  all_insist_on_one_run(world, results::identity(description));
  if (world.is_first() && !job.remark.empty()) spdlog::warn("{}", job.remark);
  const FrozenBase base(world, job.config.run, job.config.model.folder, found, job.architecture, device);
  const auto shards =
      comm::all_agree(world, [&] { return federation::open_user(job.config, job.manifest, user); });
  const auto texts = comm::all_agree(
      world, [&] { return federation::texts(*job.method, job.config, job.manifest, user, shards); });
  // 4. What is trained, and what becomes of what is shared.
  adapter::Parameters parameters(job.architecture, job.users[user], device);
  parameters.initialise(job.config.run.seed, static_cast<std::int64_t>(user));
  train::LocalTrainer trainer(base.model(), parameters, texts,
                              federation::local_plan(*job.method, config, user));
  federation::Participation participation(
      {.world = world,
       .method = *job.method,
       .options = job.config.method,
       .users = job.users,
       .tokens = expert_tokens_of_users(job),
       .parameters = parameters,
       .memory = device.is_cuda() ? comm::Memory::device : comm::Memory::host,
       .sums = federation::sums(job.config.run),
       .validation_loss =
           federation::validation_loss(config, base.model(), parameters, shards.validation, user)});
  federation::RoundLoop loop(world, config, base.model(), shards, parameters, trainer, participation,
                             interruption);
  // 5. Where it is written, and what is there already.
  Checkpointer checkpointer(world, path.parent_path() / "checkpoints", results::identity(description),
                            results::round_shape(description), parameters, trainer, participation, held);
  checkpointer.all_refuse_others(job.config.run.resume);
  Recorder recorder(world, path, description, job.architecture, job.users, job.config.run.resume, held);
  if (recorder.recorded() == job.config.run.rounds) {
    checkpointer.all_remove();
    return print(world, fmt::format("results: {} holds all {} rounds already\n", path.string(),
                                    job.config.run.rounds));
  }
  recorder.all_note_resumption();
  const std::int64_t own = parameters.values().numel();
  const std::vector<std::int64_t> trainable = world.all_gather(std::span(&own, 1));
  if (world.is_first()) print_plan(job, description, trainable);
  // 6. The rounds.
  all_go_on({world, job, description.users, parameters, trainer, loop, recorder, checkpointer}, interruption);
  print(world, fmt::format("\nresults: {} ({} in all)\n", path.string(), format_duration(watch.seconds())));
}

}  // namespace

int train(int& argc, char**& argv, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::help());
    return 0;
  }
  return run_with_mpi(argc, argv, read_start(arguments),
                      [&](const comm::Communicator& world, comm::Interruption& interruption) {
                        all_train(world, interruption, arguments);
                      });
}

}  // namespace comigs::app
