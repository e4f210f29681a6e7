#include "comigs/run/round_loop.hpp"

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/model/device.hpp"

namespace comigs::run {

using results::Stage;
using results::UserRound;

RoundLoop::RoundLoop(const Setup& setup) : setup_(setup) {
  train::LocalTrainer& trainer = setup_.seat.trainer();
  trainer.exchange_gradients(setup_.aggregation.exchange());
  // Ranks that meet at every step leave the round at the same one.
  trainer.stop_when([this, &trainer] {
    const bool asked = setup_.interruption.is_asked();
    return trainer.exchanges() ? setup_.world.all_max(asked ? 1.0 : 0.0) > 0.0 : asked;
  });
}

void RoundLoop::all_finish_round() {
  Stage& stage = setup_.seat.progress().stage;
  const SecondsInto whole(record().seconds.total);
  if (stage == Stage::training) {
    all_train();
    all_evaluate_before_last();
    all_aggregate();
    stage = Stage::aggregated;
  }
  if (stage == Stage::aggregated) {
    if (is_evaluated(record().round)) all_evaluate();
    finish_record();
    stage = Stage::evaluated;
  }
}

void RoundLoop::all_train() {
  std::optional<comm::Failure> failure;
  if (setup_.seat.trainer().exchanges()) {
    // Ranks meet at every step: only what is found after the last one can be agreed on.
    try {
      train();
    } catch (const NumericError& error) {
      failure = comm::Failure{.exit_code = error.exit_code(), .message = error.what()};
    } catch (const Interrupted& error) {
      failure = comm::Failure{.exit_code = error.exit_code(), .message = {}};
    }
  } else {
    failure = comm::capture([&] { train(); });
  }
  if (setup_.options.on_user_failure == config::OnUserFailure::go_on) all_drop_failed(failure);
  all_agree_on(failure);
}

void RoundLoop::train() {
  if (is_present()) setup_.seat.trainer().regularise(setup_.aggregation.regulariser());
  const bool through = is_present() ? setup_.seat.train() : !setup_.interruption.is_asked();
  if (!through) throw Interrupted();
}

void RoundLoop::all_drop_failed(std::optional<comm::Failure>& failure) {
  const std::int64_t round = record().round;
  const bool failed = failure && failure->exit_code != ExitCode::interrupted;
  const std::int64_t own = failed ? 1 : 0;
  setup_.world.all_meet();
  const std::vector<std::int64_t> found = setup_.roster.all_gather(std::span(&own, 1));
  const auto failures = static_cast<std::size_t>(std::ranges::count(found, 1));
  if (failures == 0 || failures == setup_.attendance.present(round).size()) return;
  const std::string message = failed ? failure->message : std::string();
  const std::vector<std::string> messages = setup_.roster.all_gather(std::span(&message, 1));
  std::vector<bool> dropped;
  for (std::size_t user = 0; user < found.size(); ++user) {
    dropped.push_back(found[user] != 0);
    if (dropped.back() && setup_.world.is_first())
      spdlog::warn("{} drops out in round {} and the others go on: {}", setup_.roster.name_of(user), round,
                   messages[user]);
  }
  setup_.attendance.drop(dropped, round);
  setup_.aggregation.all_restrict(setup_.attendance.present(round));
  if (failed) failure.reset();
}

void RoundLoop::all_evaluate() {
  all_do([&] {
    if (!is_present()) return;
    const SecondsInto evaluation(record().seconds.evaluation);
    setup_.seat.evaluate_training(when_asked());
  });
  all_evaluate_held_out([&](const HeldOutReports& found) { setup_.seat.record(found); });
}

void RoundLoop::all_evaluate_held_out(const std::function<void(const HeldOutReports&)>& take) {
  const auto all_present_do = [&](const std::function<void()>& work) {
    all_do([&] {
      if (!is_present()) return;
      const SecondsInto evaluation(record().seconds.evaluation);
      work();
    });
  };
  setup_.evaluation.all_evaluate(all_present_do, when_asked(), take);
}

void RoundLoop::all_evaluate_before_last() {
  // What users leave the run with is what the last aggregation gave them: say what it changed.
  if (!is_last(record().round) || !setup_.aggregation.changes_parameters()) return;
  record().before = {};
  all_evaluate_held_out([&](const HeldOutReports& found) { record().before = found.evaluations(); });
}

void RoundLoop::all_aggregate() {
  const SecondsInto aggregation(record().seconds.aggregation);
  federation::Aggregated done;
  // What users who take part agreed on, those who have gone must learn of too.
  std::optional<comm::Failure> failure;
  try {
    done = setup_.aggregation.all_aggregate(record().round);
  } catch (const PeerError& error) {
    failure = comm::Failure{.exit_code = error.exit_code(), .message = {}};
  }
  all_agree_on(failure);
  model::synchronize(setup_.seat.parameters().values().device());
  record().communication_bytes = done.bytes;
  record().aggregation_weight = std::move(done.weights);
}

void RoundLoop::all_do(const std::function<void()>& work) { all_agree_on(comm::capture(work)); }

void RoundLoop::all_agree_on(const std::optional<comm::Failure>& failure) {
  if (failure) setup_.interruption.tell_others();
  comm::all_agree_on(setup_.world, failure);
}

void RoundLoop::finish_record() {
  const adapter::Parameters& parameters = setup_.seat.parameters();
  UserRound& own = record();
  if (is_last(own.round) && own.before.test.tokens == 0)
    own.before = {.train = {}, .validation = own.after.validation, .test = own.after.test};
  own.participation = is_present() ? 1 : 0;
  own.ranks_in_use = parameters.user_model().rank_of_experts() > 0 ? setup_.aggregation.rank_in_use() : 0;
  own.peak_memory_bytes = model::peak_memory_bytes(parameters.values().device());
}

std::function<bool()> RoundLoop::when_asked() const {
  return [&interruption = setup_.interruption] { return interruption.is_asked(); };
}

}  // namespace comigs::run
