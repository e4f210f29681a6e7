#include "comigs/job/planned.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "comigs/base/log.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/job/device_choice.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/job/reckoning.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/calibration.hpp"

namespace comigs::job {

namespace {

int users_of(const Job& job) { return static_cast<int>(job.users.size()); }

// Of a rank, if all ran here.
int threads_of_rank(const Job& job) {
  const std::int64_t asked = job.config.run.threads;
  return asked > 0 ? static_cast<int>(asked) : std::max(1, comm::share_of_cores(users_of(job)));
}

// How much longer a step takes where all users share this machine's cores or cards.
double held_up(const Job& job, int threads, const c10::Device& device) {
  const int there = device.is_cuda() ? model::visible_gpus() : comm::cores_of_node(),
            wanted = device.is_cuda() ? users_of(job) : users_of(job) * threads;
  return std::max(1.0, static_cast<double>(wanted) / std::max(1, there));
}

Place find_place(const config::Run& run, int threads) {
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

PlannedTime measure(const Job& job, const Place& place, int threads, const std::vector<Cost>& costs) {
  constexpr double seconds_of_launch = 1.5;  // of mpirun and the ranks' libraries
  const Stopwatch watch;
  const model::Computation computed = computation(job.config.run, place.device);
  const auto base =
      model::load_base_model(job.config.model.folder, computed.stored, place.device, computed.computed);
  const double loading = watch.seconds();
  // The user with the most to do decides how long a round takes.
  const auto slowest = std::ranges::max_element(costs, {}, &Cost::flops) - costs.begin();
  const auto user = static_cast<std::size_t>(slowest);
  const train::Speed speed = train::measure_speed(*base, job.users[user], costs[user].micro_batch_sequences,
                                                  job.config.users[user].context_tokens);
  PlannedTime time{.start = 0.0,
                   .rounds = {},
                   .how = fmt::format("{} thread{} a rank, {:.0f} GFLOP/s measured", threads,
                                      threads == 1 ? "" : "s", speed.steps / 1e9)};
  const double longer = held_up(job, threads, place.device);
  const auto rounds = static_cast<double>(std::max<std::int64_t>(job.config.run.rounds, 1));
  for (const Cost& cost : costs) {
    time.start = std::max(time.start, longer * cost.start_flops / speed.evaluation);
    time.rounds.push_back(
        longer * (cost.training_flops / speed.steps + cost.evaluation_flops / speed.evaluation) / rounds);
  }
  time.start += seconds_of_launch + loading;
  return time;
}

}  // namespace

double PlannedTime::round() const { return *std::ranges::max_element(rounds); }

double PlannedTime::total(std::int64_t number_of_rounds) const {
  return start + static_cast<double>(number_of_rounds) * round();
}

config::Config Plan::as_it_acts() const {
  config::Config config = job.config;
  for (std::size_t u = 0; u < config.users.size(); ++u) {
    const adapter::UserModel& model = job.users[u];
    config.users[u].micro_batch_sequences = costs[u].micro_batch_sequences;
    if (model.experts == 0) continue;  // nothing is trained
    config.users[u].experts = model.experts;
    config.users[u].top_k = model.top_k;
  }
  config.run.threads = threads;
  return config;
}

Plan plan(const Job& job) {
  // Where: on this machine, as if all users ran here.
  const int threads = threads_of_rank(job);
  const Place place = find_place(job.config.run, threads);
  // What it takes, and whether that is there.
  const Reckoning reckoning(job, place);
  Plan plan{.job = job,
            .place = place.visible ? model::describe(place.device) : "a GPU, of which none is visible here",
            .threads = threads,
            .costs = reckoning.costs(),
            .memory_of_node = 0,
            .memory_of_machine = comm::memory_bytes(),
            .time = {},
            .problems = reckoning.problems()};
  plan.memory_of_node = memory_of_node(plan.costs, place.device.is_cuda());
  // How long it takes, where it can run.
  if (place.visible && plan.problems.empty()) plan.time = measure(job, place, threads, plan.costs);
  return plan;
}

}  // namespace comigs::job
