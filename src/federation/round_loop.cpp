#include "comigs/federation/round_loop.hpp"

#include <cmath>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/federation/local_work.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/evaluation.hpp"

namespace comigs::federation {

namespace {

train::EvaluationOptions options(const config::User& user, std::int64_t tokens) {
  return {.context = user.context_tokens, .sequences = evaluation_sequences(user), .tokens = tokens};
}

}  // namespace

RoundLoop::RoundLoop(const comm::Communicator& world, const config::Config& config,
                     const model::BaseModel& base, const data::UserData& shards,
                     model::Parameters& parameters, train::LocalTrainer& trainer, Aggregation& aggregation)
    : world_(world),
      config_(config),
      base_(base),
      shards_(shards),
      parameters_(parameters),
      trainer_(trainer),
      aggregation_(aggregation),
      user_(config.users.at(static_cast<std::size_t>(world.rank()))) {}

UserRound RoundLoop::all_start() {
  UserRound record;
  const Stopwatch watch;
  comm::all_agree(world_, [&] {
    evaluate(record);
    if (!std::isfinite(record.after.test.loss()))
      throw DataError(
          fmt::format("the loss of the untrained base model {} is not finite; are its weights whole?",
                      config_.model.folder));
  });
  record.seconds.round = watch.seconds();
  return finish(std::move(record));
}

UserRound RoundLoop::all_round(std::int64_t round) {
  UserRound record;
  record.round = round;
  const Stopwatch whole;
  all_train(round, record);
  // What users leave the run with is what the last aggregation gave them: say what it changed.
  const bool compares = is_last(round) && aggregation_.changes_parameters();
  if (compares) {
    const Stopwatch watch;
    comm::all_agree(world_, [&] { record.before = perplexities(); });
    record.seconds.evaluation = watch.seconds();
  }
  all_aggregate(round, record);
  if (is_evaluated(round)) comm::all_agree(world_, [&] { evaluate(record); });
  if (is_last(round) && !compares)
    record.before = {.train = {}, .validation = record.after.validation, .test = record.after.test};
  record.seconds.round = whole.seconds();
  return finish(std::move(record));
}

void RoundLoop::all_train(std::int64_t round, UserRound& record) {
  train::RoundSeconds seconds;
  const auto train = [&] { seconds = trainer_.train_round(round); };
  std::optional<comm::Failure> failure;
  if (trainer_.exchanges()) {
    // Ranks meet at every step: only what is found after the last one can be agreed on.
    try {
      train();
    } catch (const NumericError& error) {
      failure = comm::Failure{.exit_code = error.exit_code(), .message = error.what()};
    }
  } else {
    failure = comm::capture(train);
  }
  comm::all_agree_on(world_, failure);
  record.seconds.experts = seconds.experts;
  record.seconds.routers = seconds.routers;
}

void RoundLoop::all_aggregate(std::int64_t round, UserRound& record) {
  const Stopwatch watch;
  Aggregated done = aggregation_.all_aggregate(round);
  model::synchronize(parameters_.values().device());
  record.seconds.aggregation = watch.seconds();
  record.communication_bytes = done.bytes;
  record.aggregation_weight = std::move(done.weights);
}

void RoundLoop::evaluate(UserRound& record) const {
  const Stopwatch watch;
  const auto run = [&](const data::TokenShard& shard, std::int64_t tokens) {
    return train::evaluate(base_, parameters_, shard, options(user_, tokens));
  };
  record.after.train = run(shards_.train, config_.run.train_evaluation_tokens).evaluation;
  record.after.validation = run(shards_.validation, 0).evaluation;
  const train::SplitReport test = run(shards_.test, 0);
  record.after.test = test.evaluation;
  record.routing = with_single_expert(test.routing);
  record.update_norm = parameters_.update_norms(parameters_.user_model().experts);
  record.seconds.evaluation += watch.seconds();
  if (record.round > 0 && !std::isfinite(record.after.test.loss()))
    throw NumericError(
        fmt::format("round {}: the test loss is not finite after the round's steps; a smaller learning rate "
                    "may help ([user] expert_learning_rate = {})",
                    record.round, user_.expert_learning_rate));
}

SplitEvaluations RoundLoop::perplexities() const {
  SplitEvaluations evaluations;
  evaluations.validation =
      train::evaluate(base_, parameters_, shards_.validation, options(user_, 0)).evaluation;
  evaluations.test = train::evaluate(base_, parameters_, shards_.test, options(user_, 0)).evaluation;
  return evaluations;
}

// The one expert of a user without a router takes every token with gate 1.
RoutingStatistics RoundLoop::with_single_expert(RoutingStatistics routed) const {
  const model::UserModel& user = parameters_.user_model();
  if (user.gate != model::Gate::top_k || user.experts != 1) return routed;
  const std::vector<float> ones(static_cast<std::size_t>(base_.architecture().layers), 1.0f);
  return {.score = ones, .load = ones, .entropy = std::vector<float>(ones.size(), 0.0f)};
}

UserRound RoundLoop::finish(UserRound record) const {
  record.lora_rank = parameters_.user_model().experts > 0 ? parameters_.rank_in_use() : 0;
  record.peak_memory_bytes = model::peak_memory_bytes(parameters_.values().device());
  return record;
}

}  // namespace comigs::federation
