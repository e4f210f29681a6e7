// comigs train: from a job file to results.h5.
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/version.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/job/device_choice.hpp"
#include "comigs/job/job.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/precision.hpp"
#include "comigs/run/course.hpp"
#include "comigs/run/description.hpp"
#include "comigs/run/frozen_base.hpp"
#include "comigs/run/identity.hpp"
#include "comigs/run/output_folder.hpp"
#include "command.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

// Where the results go. Throws ConfigError where something is in the way.
std::filesystem::path results_path(const config::Run& run) {
  run::check_output(run.output);
  const std::filesystem::path results = std::filesystem::path(run.output) / "results.h5";
  if (run.resume == config::Resume::never && results::ResultsFile::exists(results))
    throw ConfigError(
        fmt::format("'{}' is there already and would be lost; choose another output folder, remove "
                    "it, or go on with it by --resume auto",
                    results.string()));
  return results;
}

std::string precision_words(config::Precision precision, const std::string& activations) {
  const std::string stored = model::name_of(job::stored_type(precision));
  return activations == stored ? stored : fmt::format("{}, computed in {}", stored, activations);
}

void print_plan(const job::Job& job, const results::RunDescription& run,
                const std::vector<std::int64_t>& trainable) {
  const auto count = [](std::size_t n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  };
  print_out("comigs {}: {}, {}, {}, seed {}\n", program_version, run.title, count(run.users.size(), "user"),
            count(static_cast<std::size_t>(job.config.run.rounds), "round"), run.seed);
  print_out("base {}: {}, {} layers, width {}, vocabulary {}, {}\n", run.base_model, job.architecture.family,
            job.architecture.layers, job.architecture.width, job.architecture.vocabulary,
            precision_words(job.config.run.precision, run.activations));
  if (const std::string& folder = job.config.model.init_adapter; !folder.empty())
    print_out("attention and experts begin as the adapter {}\n", folder);
  print_out("\n");
  std::vector<std::vector<std::string>> rows;
  for (std::size_t u = 0; u < run.users.size(); ++u) {
    const results::UserDescription& user = run.users[u];
    rows.push_back({user.name, fmt::format("{} ({} shared)", user.experts, user.generalists.size()),
                    group_digits(trainable[u]), group_digits(user.train_tokens),
                    group_digits(user.validation_tokens), group_digits(user.test_tokens),
                    fmt::format("{}: {}", user.host, user.device)});
  }
  print_out(
      format_table({"user", "experts", "trainable", "train tokens", "validation", "test", "device"}, rows));
  print_out("\n");
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

// What a person sees of the rounds: a line each, and a bar between them; from the first rank.
class Screen : public run::Watcher {
 public:
  Screen(const std::vector<results::UserDescription>& users, std::int64_t rounds, bool is_shown)
      : users_(users), rounds_(rounds), is_shown_(is_shown) {}

  void goes_on(std::int64_t round) override { print(fmt::format("going on in round {}\n", round)); }
  void begins(std::int64_t steps) override {
    print(round_head(users_));
    bar_.emplace(steps, is_shown_);
  }
  void stepped(std::int64_t round, train::Phase phase) override {
    bar_->advance(1, fmt::format("round {}/{}: {}", round, rounds_,
                                 phase == train::Phase::experts ? "experts" : "routers"));
  }
  void finished_round(const std::vector<results::UserRound>& rows, std::int64_t trained_tokens) override {
    bar_->clear();
    print(round_line(rows.front().round, rounds_, rows, trained_tokens));
  }
  void finished(const std::vector<results::UserRound>& start,
                const std::vector<results::UserRound>& end) override {
    print("\n" + summary(users_, start, end));
  }
  void ends() override { bar_.reset(); }

 private:
  void print(const std::string& text) const {
    if (is_shown_) print_out(text);
  }

  const std::vector<results::UserDescription>& users_;
  std::int64_t rounds_;
  bool is_shown_;
  std::optional<ProgressBar> bar_;
};

// What is settled before the rounds, the same on every rank but for the device.
struct Prepared {
  const job::Job& job;
  const config::Config& config;  // with micro-batches as they fit
  const run::Roster& roster;
  const model::BaseModel& base;
  c10::Device device;
  const results::RunDescription& description;
  std::filesystem::path results;
  const io::FolderLock* held;
};

// Collective. False: all rounds are there already.
bool all_run(const comm::Communicator& world, comm::Interruption& interruption, const Prepared& with) {
  const auto& [job, config, roster, base, device, description, path, held] = with;
  const config::Run& options = job.config.run;
  // 1. What is trained, and what becomes of what is shared.
  run::Seat seat(run::all_open_user(world, job, config, base, device, roster.own().front()));
  run::Attendance attendance(roster.users());
  run::PresentAggregation aggregation(run::aggregation_setup(world, job, config, base, seat), seat.user());
  const run::SharedEvaluation evaluation(
      {.world = world, .roster = roster, .users = job.users, .seat = seat});
  run::RoundLoop loop({.world = world,
                       .roster = roster,
                       .options = options,
                       .seat = seat,
                       .attendance = attendance,
                       .aggregation = aggregation,
                       .evaluation = evaluation,
                       .interruption = interruption});
  // 2. Where it is written, and what is there already.
  run::Checkpointer checkpointer({world, roster, seat, attendance, aggregation},
                                 path.parent_path() / "checkpoints", results::identity(description),
                                 results::round_shape(description), held);
  checkpointer.all_refuse_others(options.resume);
  run::Recorder recorder(world, roster, path, description, job.architecture, job.users, options.resume, held);
  if (recorder.recorded() == options.rounds) {
    checkpointer.all_remove();
    return false;
  }
  recorder.all_note_resumption();
  const std::int64_t own = seat.parameters().values().numel();
  const std::vector<std::int64_t> trainable = roster.all_gather(std::span(&own, 1));
  if (world.is_first()) print_plan(job, description, trainable);
  // 3. The rounds.
  Screen screen(description.users, options.rounds, world.is_first());
  run::Course({.world = world,
               .roster = roster,
               .options = options,
               .seat = seat,
               .loop = loop,
               .recorder = recorder,
               .checkpointer = checkpointer,
               .interruption = interruption,
               .watcher = screen})
      .all_run();
  return true;
}

void all_train(const comm::Communicator& world, comm::Interruption& interruption,
               const std::vector<std::string>& arguments) {
  const Stopwatch watch;
  // 1. What is to be done, the same on every rank.
  job::Job job = comm::all_agree(world, [&] { return job::read_job(arguments, world.size()); });
  const config::Run& options = job.config.run;
  const std::filesystem::path path = comm::all_agree(world, [&] { return results_path(options); });
  const run::Roster roster(world, job.users.size());
  // 2. Where it is done.
  const comm::Placement placement = comm::all_place(world);
  const c10::Device device =
      comm::all_agree(world, [&] { return job::choose_device(options.device, options.threads, placement); });
  job.config.run.activations = run::all_settle_activations(world, options, model::is_fast_in_bf16(device));
  const config::Config config =
      comm::all_agree(world, [&] { return job::with_micro_batches(job, roster.own(), device); });
  std::optional<run::OutputFolder> output;
  comm::all_agree(world, [&] {
    if (world.is_first()) output.emplace(options.output);
  });
  // 3. The frozen base, the same for all ranks.
  const run::WeightsFound found = run::all_find_weights(world, job.config.model.folder);
  comm::all_agree(world, [&] {
    if (world.is_first() && job.base_pruning)
      model::check_pruning(job.config.model.folder, job.architecture, *job.base_pruning);
  });
  const results::RunDescription description =
      run::all_describe(world, roster, job, {config, placement, device, found.digest});
  run::all_insist_on_one_run(world, results::identity(description));
  if (world.is_first() && !job.remark.empty()) spdlog::warn("{}", job.remark);
  const run::FrozenBase base(world, options, job.config.model.folder, found, job.architecture, device);
  // 4. The rounds.
  const bool ran = all_run(world, interruption,
                           {.job = job,
                            .config = config,
                            .roster = roster,
                            .base = base.model(),
                            .device = device,
                            .description = description,
                            .results = path,
                            .held = output ? &output->lock() : nullptr});
  if (!world.is_first()) return;
  if (ran)
    print_out("\nresults: {} ({} in all)\n", path.string(), format_duration(watch.seconds()));
  else
    print_out("results: {} holds all {} rounds already\n", path.string(), options.rounds);
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
