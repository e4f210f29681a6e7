#include "comigs/federation/round_loop.hpp"

#include <cmath>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/federation/local_work.hpp"
#include "comigs/model/device.hpp"

namespace comigs::federation {

RoundLoop::RoundLoop(const comm::Communicator& world, const config::Config& config,
                     const model::BaseModel& base, const data::UserData& shards,
                     adapter::Parameters& parameters, train::LocalTrainer& trainer,
                     Participation& participation, comm::Interruption& interruption)
    : world_(world),
      config_(config),
      base_(base),
      shards_(shards),
      parameters_(parameters),
      trainer_(trainer),
      participation_(participation),
      interruption_(interruption),
      user_(config.users.at(static_cast<std::size_t>(world.rank()))) {
  trainer_.exchange_gradients(participation_.exchange());
  // Ranks that meet at every step leave the round at the same one.
  trainer_.stop_when([this] {
    const bool asked = interruption_.is_asked();
    return trainer_.exchanges() ? world_.all_max(asked ? 1.0 : 0.0) > 0.0 : asked;
  });
}

void RoundLoop::all_finish_round(RoundProgress& progress) {
  UserRound& record = progress.record;
  const SecondsInto whole(record.seconds.total);
  if (progress.stage == Stage::training) {
    all_train(progress);
    all_compare(record);
    all_aggregate(record);
    progress.stage = Stage::aggregated;
  }
  if (progress.stage == Stage::aggregated) {
    if (is_evaluated(record.round)) all_do([&] { evaluate(record); });
    if (is_last(record.round) && record.before.test.tokens == 0)
      record.before = {.train = {}, .validation = record.after.validation, .test = record.after.test};
    record.participation = takes_part() ? 1 : 0;
    record.lora_rank = parameters_.user_model().experts > 0 ? participation_.rank_in_use() : 0;
    record.peak_memory_bytes = model::peak_memory_bytes(parameters_.values().device());
    progress.stage = Stage::evaluated;
  }
}

void RoundLoop::all_train(RoundProgress& progress) {
  std::optional<comm::Failure> failure;
  if (trainer_.exchanges()) {
    // Ranks meet at every step: only what is found after the last one can be agreed on.
    try {
      train(progress);
    } catch (const NumericError& error) {
      failure = comm::Failure{.exit_code = error.exit_code(), .message = error.what()};
    } catch (const Interrupted& error) {
      failure = comm::Failure{.exit_code = error.exit_code(), .message = {}};
    }
  } else {
    failure = comm::capture([&] { train(progress); });
  }
  if (config_.run.on_user_failure == config::OnUserFailure::go_on)
    all_drop_failed(progress.record.round, failure);
  all_agree_on(failure);
}

void RoundLoop::train(RoundProgress& progress) {
  if (!takes_part()) {
    if (interruption_.is_asked()) throw Interrupted();
    return;
  }
  trainer_.regularise(participation_.regulariser());
  const train::LocalRound done = trainer_.train_round(progress.record.round, progress.steps);
  progress.steps = done.steps;
  progress.record.seconds.experts += done.experts_seconds;
  progress.record.seconds.routers += done.routers_seconds;
  if (done.steps < user_.local_steps) throw Interrupted();
}

void RoundLoop::all_drop_failed(std::int64_t round, std::optional<comm::Failure>& failure) {
  const bool failed = failure && failure->exit_code != ExitCode::interrupted;
  const std::int64_t own = failed ? 1 : 0;
  world_.all_meet();
  const std::vector<std::int64_t> found = world_.all_gather(std::span(&own, 1));
  const std::int64_t failures = world_.all_sum(own), left = world_.all_sum(takes_part() ? 1 : 0);
  if (failures == 0 || failures == left) return;
  const std::vector<std::string> messages = world_.all_gather(failed ? failure->message : std::string());
  std::vector<bool> dropped;
  for (std::size_t user = 0; user < found.size(); ++user) {
    dropped.push_back(found[user] != 0);
    if (dropped.back() && world_.is_first())
      spdlog::warn("{} drops out in round {} and the others go on: {}",
                   world_.name_of(static_cast<int>(user)), round, messages[user]);
  }
  participation_.all_drop(dropped);
  if (failed) failure.reset();
}

void RoundLoop::all_compare(UserRound& record) {
  // What users leave the run with is what the last aggregation gave them: say what it changed.
  if (!is_last(record.round) || !participation_.changes_parameters()) return;
  const SecondsInto evaluation(record.seconds.evaluation);
  all_do([&] { record.before = perplexities(); });
}

void RoundLoop::all_aggregate(UserRound& record) {
  const SecondsInto aggregation(record.seconds.aggregation);
  Aggregated done;
  // What users who take part agreed on, those who have gone must learn of too.
  std::optional<comm::Failure> failure;
  try {
    done = participation_.all_aggregate(record.round);
  } catch (const PeerError& error) {
    failure = comm::Failure{.exit_code = error.exit_code(), .message = {}};
  }
  all_agree_on(failure);
  model::synchronize(parameters_.values().device());
  record.communication_bytes = done.bytes;
  record.aggregation_weight = std::move(done.weights);
}

void RoundLoop::all_do(const std::function<void()>& work) { all_agree_on(comm::capture(work)); }

void RoundLoop::all_agree_on(const std::optional<comm::Failure>& failure) {
  if (failure) interruption_.tell_others();
  comm::all_agree_on(world_, failure);
}

bool RoundLoop::takes_part() const {
  return participation_.includes(static_cast<std::size_t>(world_.rank()));
}

void RoundLoop::evaluate(UserRound& record) const {
  if (!takes_part()) return;
  const SecondsInto evaluation(record.seconds.evaluation);
  record.after.train = evaluated(shards_.train, config_.run.train_evaluation_tokens).evaluation;
  record.after.validation = evaluated(shards_.validation).evaluation;
  const train::SplitReport test = evaluated(shards_.test);
  record.after.test = test.evaluation;
  record.routing = with_single_expert(test.routing);
  record.update_norm = parameters_.update_norms(parameters_.user_model().experts);
  if (std::isfinite(test.evaluation.loss())) return;
  if (record.round == 0)
    throw DataError(
        fmt::format("the loss of the untrained base model {} is not finite; are its weights whole?",
                    config_.model.folder));
  throw NumericError(
      fmt::format("round {}: the test loss is not finite after the round's steps; a smaller learning rate "
                  "may help ([user] expert_learning_rate = {})",
                  record.round, user_.expert_learning_rate));
}

train::SplitReport RoundLoop::evaluated(const data::TokenShard& shard, std::int64_t tokens) const {
  return train::evaluate(base_, parameters_, shard,
                         {.context = user_.context_tokens,
                          .sequences = evaluation_sequences(user_),
                          .tokens = tokens,
                          .stop = [this] { return interruption_.is_asked(); }});
}

SplitEvaluations RoundLoop::perplexities() const {
  if (!takes_part()) return {};
  return {.train = {},
          .validation = evaluated(shards_.validation).evaluation,
          .test = evaluated(shards_.test).evaluation};
}

// The one expert of a user without a router takes every token with gate 1.
RoutingStatistics RoundLoop::with_single_expert(RoutingStatistics routed) const {
  const adapter::UserModel& user = parameters_.user_model();
  if (user.gate != adapter::Gate::top_k || user.experts != 1) return routed;
  const std::vector<float> ones(static_cast<std::size_t>(base_.architecture().layers), 1.0f);
  return {.score = ones, .load = ones, .entropy = std::vector<float>(ones.size(), 0.0f)};
}

}  // namespace comigs::federation
