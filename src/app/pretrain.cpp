// comigs pretrain: a small base model from scratch.
#include "comigs/train/pretraining.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/comm/reduction.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/pretrain.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/model/device.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "identity.hpp"
#include "output_folder.hpp"
#include "pretrain_checkpoint.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

namespace fs = std::filesystem;
using Position = PretrainCheckpoint::Position;

constexpr std::size_t digest_digits = 64;

struct Job {
  config::Pretrain plan;
  data::Manifest manifest;
  std::string options;  ///< those that decide the weights, as text
  std::string digest;   ///< of these and of the data
};

// Beside the weights: by which the next call recognises that they are what it would make.
fs::path recipe_file(const Job& job) { return fs::path(job.plan.output) / "comigs_pretrain.txt"; }

// A batch needs windows of the context and the token after; an evaluation one token to predict.
void check_corpus(const config::Pretrain& plan, const data::BaseShards& corpus) {
  const std::string reason = fmt::format("context_tokens = {}", plan.context_tokens);
  data::require_tokens(corpus.train, plan.context_tokens + 1, reason);
  data::require_tokens(corpus.validation, 2, reason);
}

// It decides no number, and bases from before there was one are to be known again.
std::string without_patience(std::string options) {
  const std::size_t begin = options.find("patience =");
  return options.erase(begin, options.find('\n', begin) + 1 - begin);
}

Job read_job(const std::vector<std::string>& arguments) {
  Job job{.plan = config::parse_pretrain(arguments), .manifest = {}, .options = {}, .digest = {}};
  job.manifest = data::read_manifest(job.plan.data);
  if (!job.manifest.base)
    throw DataError(
        fmt::format("{}/manifest.json: no base corpus to pretrain on ('base' is missing)", job.plan.data));
  data::check_tokeniser(job.manifest);
  check_corpus(job.plan, *job.manifest.base);
  check_output(job.plan.output);
  config::Pretrain numbers = job.plan;
  numbers.output = "-";
  numbers.data = "-";
  numbers.device = config::DeviceChoice::automatic;
  numbers.threads = 0;
  job.options = without_patience(config::echo(numbers));
  job.digest = sha256(job.options + job.manifest.digest);
  return job;
}

// Digests in hexadecimal, one or two lines of them.
bool is_recipe(const std::string& text) {
  return !text.empty() && text.size() % (digest_digits + 1) == 0 &&
         text.find_first_not_of("0123456789abcdef\n") == text.npos;
}

std::string read_recipe(const Job& job) {
  std::error_code none;
  if (!fs::is_regular_file(recipe_file(job), none)) return {};
  std::ifstream stream(recipe_file(job));
  return {std::istreambuf_iterator<char>(stream), {}};
}

fs::path weights_file(const Job& job) { return fs::path(job.plan.output) / "model.safetensors"; }

// What is written last: a model of other options, or of another call, does not have these weights.
std::string finished_recipe(const Job& job) {
  return job.digest + "\n" + sha256_of_file(weights_file(job)) + "\n";
}

bool is_made(const Job& job) {
  std::error_code none;
  return read_recipe(job).starts_with(job.digest) && fs::exists(weights_file(job), none) &&
         fs::exists(fs::path(job.plan.output) / "config.json", none) &&
         read_recipe(job) == finished_recipe(job);
}

// Before the work, not after it: throws ConfigError for a folder that holds what this call would not have
// made. A model that is not finished is made anew by the same options.
void claim_folder(const Job& job) {
  const fs::path folder = job.plan.output;
  const std::string recipe = read_recipe(job);
  const bool is_own = recipe == job.digest + "\n";
  const std::string checkpoint = PretrainCheckpoint::path_in(folder).filename().string();
  for (const std::string& name : {std::string("config.json"), std::string("model.safetensors"),
                                  std::string("tokenizer.json"), checkpoint})
    if (fs::exists(fs::symlink_status(folder / name)) && (!is_own || name == "config.json"))
      throw ConfigError(
          fmt::format("--output {}: holds a model's {} already, which this call would not have made; remove "
                      "it or name another folder",
                      job.plan.output, name));
  if (fs::exists(fs::symlink_status(recipe_file(job))) && !is_recipe(recipe))
    throw ConfigError(fmt::format("{}: found something else, expected none or a note of comigs pretrain",
                                  recipe_file(job).string()));
  io::write_atomically(recipe_file(job), job.digest + "\n");
}

// The loss is a sum over ranks: where it is not finite, all of them learn of it in the same step and leave
// together.
double all_step(const comm::Communicator& world, train::Pretraining& pretraining, std::int64_t step,
                const data::TokenShard& text, comm::Reduction& reduction) {
  try {
    return pretraining.step(step, text, [&](std::span<float> block) { reduction.all_sum(world, block); });
  } catch (const NumericError& error) {
    comm::all_agree_on(world, comm::Failure{.exit_code = error.exit_code(), .message = error.what()});
    throw;
  }
}

// What the steps are made with.
struct Run {
  const comm::Communicator& world;
  comm::Interruption& interruption;
  const Job& job;
  train::Pretraining& pretraining;
  const PretrainCheckpoint& checkpoint;
};

bool is_evaluated(const config::Pretrain& plan, std::int64_t steps) {
  return steps > 0 && (steps % plan.evaluate_every == 0 || steps == plan.steps);
}

void all_evaluate(const Run& run, const Position& position, const data::TokenShard& held_out,
                  ProgressBar& bar, const Stopwatch& lap) {
  comm::all_agree(run.world, [&] {
    io::check_mapped_files();
    if (!run.world.is_first()) return;
    const double perplexity =
        run.pretraining.evaluate(held_out, [&] { return run.interruption.is_asked(); }).perplexity();
    bar.clear();
    if (!std::isfinite(perplexity))
      throw NumericError(fmt::format(
          "step {}: the validation perplexity is not finite; try a smaller --learning-rate", position.steps));
    print_out("step {:>6}  loss {:.3f}  validation perplexity {:.2f}  {}\n", position.steps, position.loss,
              perplexity, format_duration(lap.seconds()));
  });
}

// From where `position` stands to the last step, or to where ranks were asked to stop.
void all_run(const Run& run, const data::BaseShards& corpus, comm::Memory memory, Position& position) {
  const comm::Communicator& world = run.world;
  const config::Pretrain& plan = run.job.plan;
  const std::int64_t vocabulary = run.job.manifest.vocabulary;
  const data::TokenShard text =
      comm::all_agree(world, [&] { return data::TokenShard(corpus.train, vocabulary); });
  const data::TokenShard held_out =
      comm::all_agree(world, [&] { return data::TokenShard(corpus.validation, vocabulary); });
  comm::Reduction reduction(memory, comm::Sums::any_order);
  ProgressBar bar(plan.steps - position.steps, world.is_first());
  Stopwatch lap;
  for (;; ++position.steps) {
    if (is_evaluated(plan, position.steps)) all_evaluate(run, position, held_out, bar, lap);
    if (position.steps == plan.steps) return;
    // Ranks that meet at every step leave at the same one.
    if (world.all_max(run.interruption.is_asked() ? 1.0 : 0.0) > 0.0) throw PeerError(ExitCode::interrupted);
    position.loss = all_step(world, run.pretraining, position.steps, text, reduction);
    bar.advance(1, fmt::format("step {}/{}, loss {:.3f}", position.steps + 1, plan.steps, position.loss));
  }
}

// Every rank has the same numbers: the first reads and writes them.
Position all_restore(const Run& run) {
  const comm::Communicator& world = run.world;
  const PretrainCheckpoint::Blocks blocks = run.pretraining.state();
  const Position found = comm::all_agree(world, [&] {
    return world.is_first() && run.checkpoint.exists() ? run.checkpoint.read(blocks) : Position();
  });
  const std::array own = {static_cast<double>(found.steps), found.loss};
  const std::vector<double> all = world.all_gather(std::span<const double>(own));
  if (all[0] == 0.0) return {};
  for (const auto& [name, block] : blocks) {
    const at::Tensor host = block.to(at::kCPU);
    world.all_broadcast(std::span(host.data_ptr<float>(), static_cast<std::size_t>(host.numel())), 0);
    block.copy_(host);
  }
  if (world.is_first()) print_out("going on after step {:.0f}\n", all[0]);
  return {.steps = static_cast<std::int64_t>(all[0]), .loss = all[1]};
}

// Writes down where an interrupted call stands, and says how it can go on.
void all_leave(const Run& run, const Position& position) {
  const std::string reason = run.interruption.all_reason();
  comm::all_agree(run.world, [&] {
    if (run.world.is_first() && position.steps > 0) run.checkpoint.write(position, run.pretraining.state());
  });
  if (run.world.is_first())
    spdlog::warn("stopped by {} after {} of {} steps{}; the same command goes on from there", reason,
                 position.steps, run.job.plan.steps, position.steps > 0 ? ", checkpoint written" : "");
}

void all_go_on(const Run& run, comm::Memory memory) {
  Position position = all_restore(run);
  try {
    all_run(run, *run.job.manifest.base, memory, position);
  } catch (const PeerError& error) {
    if (error.exit_code() == ExitCode::interrupted) all_leave(run, position);
    throw;
  }
}

void all_pretrain(const comm::Communicator& world, comm::Interruption& interruption,
                  const std::vector<std::string>& arguments) {
  // 1. What is to be made, and whether it is there already.
  const Job job = comm::all_agree(world, [&] { return read_job(arguments); });
  const PretrainCheckpoint checkpoint(job.plan.output, job.digest);
  all_insist_alike(world,
                   {{"program", this_build()},
                    {"digest of the options", sha256(job.options).substr(0, 12)},
                    {"digest of " + job.plan.data + "/manifest.json", job.manifest.digest.substr(0, 12)}});
  // The first looks, for all: file systems may show others another state.
  const bool made = comm::all_agree(world, [&] { return world.is_first() && is_made(job); });
  if (world.all_max(made ? 1.0 : 0.0) > 0.0) {
    if (!world.is_first()) return;
    checkpoint.remove();
    print_out("{}: there already, made by the same options from the same data\n", job.plan.output);
    return;
  }
  std::optional<OutputFolder> output;
  comm::all_agree(world, [&] {
    if (!world.is_first()) return;
    output.emplace(job.plan.output);
    claim_folder(job);
  });
  // 2. Where.
  const comm::Placement placement = comm::all_place(world);
  const c10::Device device =
      comm::all_agree(world, [&] { return choose_device(job.plan.device, job.plan.threads, placement); });
  // 3. The weights and their training.
  const auto pretraining = comm::all_agree(world, [&] {
    return std::make_unique<train::Pretraining>(job.plan, job.manifest.vocabulary, device,
                                                data::Share{.index = world.rank(), .of = world.size()});
  });
  if (world.is_first())
    print_out(
        "comigs pretrain: GPT-2, {} layers, width {}, vocabulary {}, {} parameters; {} steps of {} x {} "
        "tokens on {} ({})\n",
        job.plan.layers, job.plan.width, job.manifest.vocabulary, group_digits(pretraining->parameters()),
        job.plan.steps, job.plan.batch_sequences, job.plan.context_tokens, job.manifest.name,
        model::describe(device));
  all_go_on({world, interruption, job, *pretraining, checkpoint},
            device.is_cuda() ? comm::Memory::device : comm::Memory::host);
  // 4. The folder.
  comm::all_agree(world, [&] {
    if (!world.is_first()) return;
    output->lock().check();
    io::write_atomically(fs::path(job.plan.output) / "tokenizer.json",
                         io::MappedFile(job.manifest.tokeniser).bytes());
    pretraining->write(job.plan.output);
    io::write_atomically(recipe_file(job), finished_recipe(job));
    checkpoint.remove();
    print_out("base model: {}\n", job.plan.output);
  });
}

Start read_start(const std::vector<std::string>& arguments) {
  Start start;
  (void)comm::capture([&] { start.patience_seconds = config::parse_pretrain(arguments).patience; });
  return start;
}

}  // namespace

int pretrain(int& argc, char**& argv, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::pretrain_help());
    return 0;
  }
  return run_with_mpi(argc, argv, read_start(arguments),
                      [&](const comm::Communicator& world, comm::Interruption& interruption) {
                        all_pretrain(world, interruption, arguments);
                      });
}

}  // namespace comigs::app
