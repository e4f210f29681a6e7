// comigs plan: what a run will take, before it begins. One process, no MPI.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/job/reckoning.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/calibration.hpp"
#include "command.hpp"
#include "device_choice.hpp"
#include "json_text.hpp"
#include "plan_report.hpp"

namespace comigs::app {

namespace {

int users_of(const job::Job& job) { return static_cast<int>(job.users.size()); }

// Of a rank, if all ran here.
int threads_of_rank(const job::Job& job) {
  const std::int64_t asked = job.config.run.threads;
  return asked > 0 ? static_cast<int>(asked) : std::max(1, comm::share_of_cores(users_of(job)));
}

// How much longer a step takes where all users share this machine's cores or cards.
double held_up(const job::Job& job, int threads, const c10::Device& device) {
  const int there = device.is_cuda() ? model::visible_gpus() : comm::cores_of_node(),
            wanted = device.is_cuda() ? users_of(job) : users_of(job) * threads;
  return std::max(1.0, static_cast<double>(wanted) / std::max(1, there));
}

job::Place find_place(const config::Run& run, int threads) {
  model::set_up_host(threads);
  const bool visible = model::visible_gpus() > 0;
  const bool automatic = run.device == config::DeviceChoice::automatic;
  if (automatic && !visible) warn_of_unused_gpu("this machine");
  if (run.device == config::DeviceChoice::cpu || (automatic && !visible))
    return {.memory_bytes = comm::memory_bytes()};
  if (!visible) return {.device = c10::DeviceType::CUDA, .visible = false};
  const c10::Device device = model::bind_gpu(0);
  return {.device = device, .visible = true, .memory_bytes = model::gpu_memory_bytes()};
}

// What ranks read at their start, with the checks that they make.
void check_files(const job::Job& job) {
  for (std::size_t user = 0; user < job.users.size(); ++user)
    (void)job::open_user(job.config, job.manifest, user);
}

PlannedTime measure(const job::Job& job, const job::Place& place, int threads,
                    const std::vector<job::Cost>& costs) {
  constexpr double seconds_of_launch = 1.5;  // of mpirun and the ranks' libraries
  const Stopwatch watch;
  const model::Computation computation = job::computation(job.config.run, place.device);
  const auto base =
      model::load_base_model(job.config.model.folder, computation.stored, place.device, computation.computed);
  const double loading = watch.seconds();
  // The user with the most to do decides how long a round takes.
  const auto slowest = std::ranges::max_element(costs, {}, &job::Cost::flops) - costs.begin();
  const auto user = static_cast<std::size_t>(slowest);
  const train::Speed speed = train::measure_speed(*base, job.users[user], costs[user].micro_batch_sequences,
                                                  job.config.users[user].context_tokens);
  PlannedTime time{.start = 0.0,
                   .rounds = {},
                   .how = fmt::format("{} thread{} a rank, {:.0f} GFLOP/s measured", threads,
                                      threads == 1 ? "" : "s", speed.steps / 1e9)};
  const double longer = held_up(job, threads, place.device);
  const auto rounds = static_cast<double>(std::max<std::int64_t>(job.config.run.rounds, 1));
  for (const job::Cost& cost : costs) {
    time.start = std::max(time.start, longer * cost.start_flops / speed.evaluation);
    time.rounds.push_back(
        longer * (cost.training_flops / speed.steps + cost.evaluation_flops / speed.evaluation) / rounds);
  }
  time.start += seconds_of_launch + loading;
  return time;
}

int print_settings(const std::vector<std::string>& arguments) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, text] : config::settings(config::parse(arguments))) json[name] = text;
  print_out(json_text(json));
  return 0;
}

int plan(const std::vector<std::string>& arguments, bool as_json) {
  // 1. What is to be done, with all of train's checks.
  const job::Job job = job::read_job(arguments);
  check_files(job);
  if (!job.remark.empty()) print_error(fmt::format("comigs: {}\n", job.remark));
  // 2. Where: on this machine, as if all users ran here.
  const int threads = threads_of_rank(job);
  const job::Place place = find_place(job.config.run, threads);
  // 3. What it takes, and whether that is there.
  const job::Reckoning reckoning(job, place);
  Plan plan{.job = job,
            .place = place.visible ? model::describe(place.device) : "a GPU, of which none is visible here",
            .threads = threads,
            .costs = reckoning.costs(),
            .memory_of_node = 0,
            .memory_of_machine = comm::memory_bytes(),
            .time = {},
            .problems = reckoning.problems()};
  plan.memory_of_node = job::memory_of_node(plan.costs, place.device.is_cuda());
  // 4. How long it takes, where it can run.
  if (place.visible && plan.problems.empty()) plan.time = measure(job, place, threads, plan.costs);
  io::check_mapped_files();
  print_out(as_json ? plan_as_json(plan) : plan_as_text(plan));
  return static_cast<int>(plan.problems.empty() ? ExitCode::done : ExitCode::bad_input);
}

}  // namespace

int plan(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::plan_help());
    return 0;
  }
  std::vector<std::string> options = arguments;
  if (std::erase(options, "--settings") > 0) return print_settings(options);
  const bool as_json = std::erase(options, "--json") > 0;
  return run_alone("plan", [&] { return plan(options, as_json); });
}

}  // namespace comigs::app
