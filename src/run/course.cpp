#include "comigs/run/course.hpp"

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/run/warmup_groups.hpp"

namespace comigs::run {

using results::UserRound;

void Course::all_run() {
  if (setup_.options.resume == config::Resume::automatic &&
      setup_.checkpointer.all_restore(setup_.recorder.recorded()))
    setup_.watcher.goes_on(setup_.seat.progress().record.round);
  try {
    all_find_warmup_groups(setup_.world, setup_.roster, setup_.seat,
                           [this] { return setup_.interruption.is_asked(); });
    all_run_rounds();
  } catch (const PeerError& error) {
    setup_.watcher.ends();
    if (error.exit_code() == ExitCode::interrupted) {
      all_leave();
    } else {
      setup_.recorder.discard_empty();
    }
    throw;
  }
}

void Course::all_run_rounds() {
  const config::User& user = setup_.seat.options();
  train::LocalTrainer& trainer = setup_.seat.trainer();
  setup_.watcher.begins(steps_ahead());
  trainer.observe([this](train::Phase phase, const data::Batch&, const train::StepLosses&) {
    setup_.watcher.stepped(setup_.seat.progress().record.round, phase);
  });
  for (;; setup_.seat.progress().begin_next()) {
    const std::int64_t round = setup_.seat.progress().record.round;
    setup_.loop.all_finish_round();
    comm::all_agree(setup_.world, io::check_mapped_files);
    if (round == 0) setup_.seat.keep_start();
    const std::vector<UserRound> rows = all_write();
    const std::int64_t sequences = round > 0 ? trainer.steps_in_round(round) * user.batch_sequences : 0;
    setup_.watcher.finished_round(rows, setup_.world.all_sum(sequences * user.context_tokens));
    if (round < setup_.options.rounds) continue;
    setup_.watcher.finished(setup_.recorder.all_gather(setup_.seat.start()), rows);
    break;
  }
  setup_.watcher.ends();
  setup_.checkpointer.all_remove();
}

std::vector<UserRound> Course::all_write() {
  UserRound& record = setup_.seat.progress().record;
  if (is_checkpoint_due(record.round)) {
    record.seconds.checkpoint = 0.0;
    const SecondsInto checkpoint(record.seconds.checkpoint), total(record.seconds.total);
    setup_.checkpointer.all_write();
  }
  return setup_.recorder.all_write(record,
                                   stores_weights(record.round) ? &setup_.seat.parameters() : nullptr);
}

void Course::all_leave() {
  const std::string reason = setup_.interruption.all_reason();
  const std::int64_t round = setup_.seat.progress().record.round;
  comm::all_agree(setup_.world, io::check_mapped_files);
  if (round > 0) setup_.checkpointer.all_write();
  if (setup_.world.is_first())
    spdlog::warn("stopped by {} in round {} of {}{}; the same command with --resume auto goes on from there",
                 reason, round, setup_.options.rounds, round > 0 ? ", checkpoint written" : "");
}

bool Course::is_checkpoint_due(std::int64_t round) const {
  return round > 0 && round < setup_.options.rounds && setup_.options.checkpoint_every > 0 &&
         round % setup_.options.checkpoint_every == 0;
}

bool Course::stores_weights(std::int64_t round) const {
  return round == setup_.options.rounds ||
         (setup_.options.weights_every > 0 && round % setup_.options.weights_every == 0);
}

std::int64_t Course::steps_ahead() const {
  std::int64_t steps = 0;
  const std::int64_t first = std::max<std::int64_t>(setup_.seat.progress().record.round, 1);
  for (std::int64_t round = first; round <= setup_.options.rounds; ++round)
    steps += setup_.seat.trainer().steps_in_round(round);
  return steps;
}

}  // namespace comigs::run
