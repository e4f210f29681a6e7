// A run of a few toy users, one a rank, for the tests of what carries a run.
#pragma once

#include <ATen/ATen.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>
#include <vector>

#include "comigs/comm/interruption.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/results/results_file.hpp"
#include "comigs/run/attendance.hpp"
#include "comigs/run/present_aggregation.hpp"
#include "comigs/run/roster.hpp"
#include "comigs/run/round_loop.hpp"
#include "comigs/run/seat.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::test {

inline config::Config small_config(int users) {
  config::Config config;
  config.data.folder = "texts";
  config.model.folder = "base";
  config.run.output = "out";
  config.run.rounds = 3;
  config.run.seed = 1;
  config.run.evaluate_every = 2;
  config.run.train_evaluation_tokens = 40;
  config.method.router_every = 2;
  config.method.router_steps = 2;
  const std::int64_t experts[] = {4, 2, 1, 1};
  for (int user = 0; user < users; ++user)
    config.users.push_back({.experts = experts[user],
                            .lora_rank = 2,
                            .batch_sequences = 3,
                            .context_tokens = 6,
                            .local_steps = 2});
  return config;
}

/// What outlives a restart of a run: its options, its base, this rank's user and its texts.
struct Material : TemporaryFolder {
  explicit Material(const char* name = "comigs-1gxs") : method(federation::find_method(name)) {}

  comm::Communicator world = comm::Communicator::world();
  run::Roster roster{world, static_cast<std::size_t>(world.size())};
  std::size_t own = roster.own().front();
  config::Config config = small_config(world.size());
  const federation::Method& method;
  std::vector<adapter::UserModel> users = federation::user_models(method, config.users);
  std::unique_ptr<model::BaseModel> base = tiny_base();
  data::UserData shards = write_user(folder, "user", random_tokens(200, 37, 10 + own),
                                     random_tokens(60, 37, 20 + own), random_tokens(50, 37, 30 + own), 37);
  train::Texts texts{.experts = {shards.train}, .routers = {shards.validation}};

  [[nodiscard]] run::SeatSetup seat_setup() const {
    return {.config = config,
            .method = method,
            .user_model = users[own],
            .base = *base,
            .device = at::kCPU,
            .user = own,
            .data = shards,
            .texts = texts};
  }

  /// What its results say of the run.
  [[nodiscard]] results::RunDescription description() const {
    results::RunDescription run;
    run.title = "a test";
    run.configuration = config::echo(config);
    run.data_digest = "da7a";
    run.base_digest = "ba5e";
    run.base_architecture = model::config_json(tiny_architecture());
    run.activations = "float32";
    run.computed_by = {"this program"};
    for (std::size_t user = 0; user < users.size(); ++user)
      run.users.push_back({.name = "user " + std::to_string(user),
                           .host = "here",
                           .device = "CPU",
                           .experts = users[user].experts,
                           .generalists = users[user].generalists});
    run.layers = tiny_architecture().layers;
    run.rounds = config.run.rounds;
    return run;
  }
};

/// Nothing is logged in its life.
class Quiet {
 public:
  Quiet() {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("quiet", std::make_shared<spdlog::sinks::null_sink_st>()));
  }
  ~Quiet() { spdlog::set_default_logger(log_); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  std::shared_ptr<spdlog::logger> log_ = spdlog::default_logger();
};

/// One process's part of it, from its start on. Collective.
struct Served {
  run::Seat seat;
  run::Attendance attendance;
  run::PresentAggregation aggregation;
  run::SharedEvaluation evaluation;
  run::RoundLoop loop;

  Served(const Material& material, comm::Interruption& interruption)
      : seat(material.seat_setup()),
        attendance(material.roster.users()),
        aggregation({.world = material.world,
                     .method = material.method,
                     .users = material.users,
                     .amounts = {},
                     .parameters = seat.parameters(),
                     .validation_loss = {}},
                    seat.user()),
        evaluation(
            {.world = material.world, .roster = material.roster, .users = material.users, .seat = seat}),
        loop(loop_setup(material, interruption)) {}

  [[nodiscard]] run::RoundLoop::Setup loop_setup(const Material& material, comm::Interruption& interruption) {
    return {.world = material.world,
            .roster = material.roster,
            .options = material.config.run,
            .seat = seat,
            .attendance = attendance,
            .aggregation = aggregation,
            .evaluation = evaluation,
            .interruption = interruption};
  }

  // Collective.
  results::UserRound all_round(std::int64_t round) {
    seat.progress() = {.stage = round == 0 ? results::Stage::aggregated : results::Stage::training,
                       .steps = 0,
                       .record = {.round = round}};
    loop.all_finish_round();
    return seat.progress().record;
  }
};

}  // namespace comigs::test
