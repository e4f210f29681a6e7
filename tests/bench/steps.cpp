// Times optimiser steps of one phase and measures the memory of one user, as `comigs train` would have it.
//
//   bench_steps experts|routers WARM_UP MEASURED DEVIATION RECORD [options of `comigs train`]
//     WARM_UP + MEASURED steps from initial parameters to which N(0, DEVIATION^2) is added; every rank of
//     mpirun is a user. RECORD: a file for what plain PyTorch needs to do the same steps, or '-'. It holds
//     values [P] before the first step, tokens and targets [S, B, T]; in the metadata each parameter's
//     "offset rows columns" in the block and, as "setting", JSON of what decides a step.
// Prints JSON: rank 0's seconds of each measured step and losses of all, sizes, peak memory, and the memory
// of every rank before its first step (not on a GPU).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/session.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "comigs/model/device.hpp"
#include "support/user_job.hpp"

namespace {

using namespace comigs;
using Arguments = std::vector<std::string>;
using Clock = std::chrono::steady_clock;
using nlohmann::json;

struct Request {
  train::Phase phase = train::Phase::experts;
  std::int64_t warm_up = 0, measured = 0;
  float deviation = 0.0F;
  std::string record;
  Arguments options;

  [[nodiscard]] std::int64_t steps() const { return warm_up + measured; }
};

Request read_request(const Arguments& arguments) {
  const ConfigError usage("expected: experts|routers WARM_UP MEASURED DEVIATION RECORD [options]");
  if (arguments.size() < 5 || (arguments[0] != "experts" && arguments[0] != "routers")) throw usage;
  try {
    return {.phase = arguments[0] == "experts" ? train::Phase::experts : train::Phase::routers,
            .warm_up = std::stol(arguments[1]),
            .measured = std::stol(arguments[2]),
            .deviation = std::stof(arguments[3]),
            .record = arguments[4],
            .options = Arguments(arguments.begin() + 5, arguments.end())};
  } catch (const std::logic_error&) {  // no number
    throw usage;
  }
}

// The options as asked for, and one round that is nothing but steps of the phase, but for one expert step
// before the first router step; a constant learning rate, so that nobody needs the schedule.
Arguments options_of(const Request& request) {
  const std::string steps = std::to_string(request.steps()), beyond = std::to_string(request.steps() + 1);
  const bool experts = request.phase == train::Phase::experts;
  Arguments options = request.options;
  options.insert(options.end(),
                 {"--output", "unused", "--rounds", "1", "--final-fraction", "1", "--router-steps", steps,
                  "--local-steps", experts ? steps : "1", "--router-every", experts ? beyond : "1"});
  return options;
}

// Bytes that a file of /proc/self gives under a name, in lines "Name:  123 kB".
std::int64_t kernel_account(const char* file, const std::string& name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string found;
    std::int64_t kibibytes = 0;
    if (words >> found >> kibibytes && found == name) return kibibytes * 1024;
  }
  throw IoError(fmt::format("{}: no entry '{}'", file, name));
}

// Resident, this process's part of what is shared, its own.
std::vector<std::int64_t> memory_now() {
  const char* const file = "/proc/self/smaps_rollup";
  return {kernel_account(file, "Rss:"), kernel_account(file, "Pss:"),
          kernel_account(file, "Private_Clean:") + kernel_account(file, "Private_Dirty:")};
}

// What the observer of the trainer sees of the phase.
struct Recording {
  Clock::time_point begun;
  std::vector<Clock::time_point> times;  // when a step's gradients are there
  std::vector<std::vector<at::Tensor>> losses;
  std::vector<at::Tensor> tokens, targets;
  at::Tensor values;  // before the first step of the phase
};

// One token through the whole base: all its pages and the libraries' own buffers are there, but no
// activations.
void touch(const test::Job& job, const adapter::Parameters& parameters) {
  const at::NoGradGuard no_gradients;
  const at::Tensor one = at::zeros({1, 1}, at::kLong).to(job.base->head().device());
  const at::Tensor hidden = adapter::forward(*job.base, one, parameters).hidden;
  model::cross_entropy_of_tokens(hidden, job.base->head(), one.view(-1)).sum(at::kDouble).item<double>();
}

// Collective: every rank's `memory_now`, when all ranks are set up and none has begun.
json all_measure_memory(const comm::Communicator& world) {
  static_cast<void>(world.all_sum(1));
  const std::vector<std::int64_t> all = world.all_gather(std::span<const std::int64_t>(memory_now()));
  static_cast<void>(world.all_sum(1));
  json ranks = json::array();
  for (std::size_t i = 0; i < all.size(); i += 3)
    ranks.push_back({{"resident", all[i]}, {"proportional", all[i + 1]}, {"private", all[i + 2]}});
  return ranks;
}

Recording run(const Request& request, const test::Job& job, adapter::Parameters& parameters,
              train::LocalTrainer& trainer) {
  Recording recording;
  if (request.phase == train::Phase::experts) recording.values = parameters.values().clone();
  trainer.observe([&](train::Phase phase, const data::Batch& batch, const train::StepLosses& losses) {
    if (phase != request.phase) return;  // the expert step before the router steps
    model::synchronize(parameters.values().device());
    recording.times.push_back(Clock::now());
    // The routers' first optimiser step is still to come.
    if (!recording.values.defined()) recording.values = parameters.values().clone();
    recording.losses.push_back({losses.language_model, losses.load_balancing});
    recording.tokens.push_back(test::as_tensor(batch.tokens, batch));
    recording.targets.push_back(test::as_tensor(batch.targets, batch));
  });
  recording.begun = Clock::now();
  trainer.train_round(job.config.run.rounds);
  return recording;
}

// From the gradients of one step to those of the next: the optimiser of the one, the passes of the other.
std::vector<double> measured_seconds(const Request& request, const Recording& recording) {
  std::vector<double> seconds;
  for (auto s = static_cast<std::size_t>(request.warm_up); s < recording.times.size(); ++s) {
    const Clock::time_point before = s > 0 ? recording.times[s - 1] : recording.begun;
    seconds.push_back(std::chrono::duration<double>(recording.times[s] - before).count());
  }
  return seconds;
}

json losses_of(const Recording& recording) {
  json losses = json::array();
  for (const std::vector<at::Tensor>& step : recording.losses) {
    const float balancing = test::value_or_nan(step[1]);
    losses.push_back({test::value_or_nan(step[0]), std::isnan(balancing) ? json(nullptr) : json(balancing)});
  }
  return losses;
}

json setting(const Request& request, const test::Job& job) {
  const config::User& user = job.plan.user;
  const config::Optimiser& optimiser = job.plan.optimiser;
  const bool experts = request.phase == train::Phase::experts;
  return {{"phase", experts ? "experts" : "routers"},
          {"model", job.config.model.folder},
          {"device", job.base->head().is_cuda() ? "cuda" : "cpu"},
          {"precision", job.config.run.precision == config::Precision::bf16 ? "bf16" : "float32"},
          {"heads", job.base->architecture().heads},
          {"adapter", job.user_model.kind->name},
          {"experts", job.user_model.experts},
          {"top_k", user.top_k},
          {"scale", job.user_model.scale()},
          {"balancing_weight", job.plan.method.load_balancing_weight},
          {"learning_rate", experts ? user.expert_learning_rate : user.router_learning_rate},
          {"betas", {optimiser.beta1, optimiser.beta2}},
          {"epsilon", optimiser.epsilon},
          {"weight_decay", optimiser.weight_decay.value_or(job.user_model.kind->weight_decay)},
          {"warm_up", request.warm_up},
          {"threads", job.config.run.threads}};
}

void write_record(const Request& request, const test::Job& job, const adapter::Parameters& parameters,
                  const Recording& recording) {
  test::Metadata metadata = test::layout(parameters);
  metadata["setting"] = setting(request, job).dump();
  test::write_outputs(request.record,
                      {{"values", recording.values.to(at::kCPU)},
                       {"tokens", at::stack(recording.tokens)},
                       {"targets", at::stack(recording.targets)}},
                      metadata);
}

std::int64_t frozen_parameters(const model::Architecture& architecture) {
  std::int64_t count = 0;
  for (const model::WeightSpec& spec : model::weight_specs(architecture)) count += spec.count();
  return count;
}

std::int64_t trained_parameters(const Request& request, const test::Job& job, const adapter::Layout& layout) {
  const bool experts = request.phase == train::Phase::experts,
             both = experts && job.plan.router_training == train::RouterTraining::joint;
  return (experts ? layout.slice(adapter::select::factors()).count : 0) +
         (!experts || both ? layout.slice(adapter::select::routers()).count : 0);
}

void all_run(const comm::Communicator& world, const Request& request) {
  const auto user = static_cast<std::size_t>(world.rank());
  const Arguments options = options_of(request);
  const config::Config config = config::resolve(config::parse(options), world.size());
  model::set_up_host(static_cast<int>(std::max<std::int64_t>(config.run.threads, 1)));
  const c10::Device device = config.run.device == config::DeviceChoice::cuda
                                 ? model::bind_gpu(world.rank())
                                 : c10::Device(c10::DeviceType::CPU);
  const test::Job job = test::read_job(world.size(), user, options, device);
  adapter::Parameters parameters(job.base->architecture(), job.user_model, device);
  adapter::initialise(parameters, *job.base, job.config.run.seed, world.rank());
  test::perturb(parameters.values(), request.deviation);
  train::LocalTrainer trainer(*job.base, parameters, job.texts, job.plan);
  touch(job, parameters);
  // The host's: of no interest beside a card, and not every container's kernel accounts for it.
  const json set_up = device.is_cuda() ? json() : all_measure_memory(world);
  world.all_meet();  // ranks that share a card step side by side
  const Recording recording = run(request, job, parameters, trainer);
  if (!world.is_first()) return;
  // Not getrusage, whose peak starts with that of the process that started this one.
  const std::int64_t peak =
      device.is_cuda() ? model::peak_memory_bytes(device) : kernel_account("/proc/self/status", "VmHWM:");
  if (request.record != "-") write_record(request, job, parameters, recording);
  const json report = {{"setting", setting(request, job)},
                       {"seconds", measured_seconds(request, recording)},
                       {"losses", losses_of(recording)},
                       {"frozen_parameters", frozen_parameters(job.base->architecture())},
                       {"trained_parameters", trained_parameters(request, job, parameters.layout())},
                       {"block_bytes", parameters.values().nbytes()},
                       {"set_up_memory", set_up},
                       {"peak_memory", peak}};
  fmt::print("{}\n", report.dump(1));
}

int code_of(const comm::Failure& failure) {
  fmt::print(stderr, "error: {}\n", failure.message);
  return static_cast<int>(failure.exit_code);
}

}  // namespace

int main(int argc, char** argv) {
  const std::optional<comm::Failure> refused = comm::capture([&] {
    const Request request = read_request(Arguments(argv + 1, argv + argc));
    const comm::Session session(argc, argv);
    // The other ranks may be waiting for this one.
    if (const auto failure = comm::capture([&] { all_run(comm::Communicator::world(), request); }))
      comm::Session::abort(code_of(*failure));
  });
  return refused ? code_of(*refused) : 0;
}
