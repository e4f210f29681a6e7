// A run from where it stands to its end: rounds, rows and checkpoints.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/comm/interruption.hpp"
#include "comigs/config/config.hpp"
#include "comigs/results/user_round.hpp"
#include "comigs/run/checkpointer.hpp"
#include "comigs/run/recorder.hpp"
#include "comigs/run/round_loop.hpp"

namespace comigs::run {

/// Who watches a run; called on every rank, and not to communicate.
class Watcher {
 public:
  Watcher() = default;
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  virtual ~Watcher() = default;

  /// The run goes on where an interrupted one stood.
  virtual void goes_on(std::int64_t round) = 0;
  /// Before the first round; `steps`: the optimiser steps that this rank has before it.
  virtual void begins(std::int64_t steps) = 0;
  /// After each optimiser step of this rank.
  virtual void stepped(std::int64_t round, train::Phase phase) = 0;
  /// `rows` [user]; `trained_tokens`: of all users' expert steps.
  virtual void finished_round(const std::vector<results::UserRound>& rows, std::int64_t trained_tokens) = 0;
  /// `start`, `end` [user]: the first and the last round.
  virtual void finished(const std::vector<results::UserRound>& start,
                        const std::vector<results::UserRound>& end) = 0;
  /// After the last round, or where the run is left before it.
  virtual void ends() = 0;
};

/// Keeps references to what it is given, which must live longer.
class Course {
 public:
  struct Setup {
    const comm::Communicator& world;
    const Roster& roster;
    const config::Run& options;
    Seat& seat;
    RoundLoop& loop;
    Recorder& recorder;
    Checkpointer& checkpointer;
    comm::Interruption& interruption;
    Watcher& watcher;
  };
  explicit Course(const Setup& setup) : setup_(setup) {}

  /// Collective. From the newest checkpoint, where the run is to resume and there is one, or from round 0, to
  /// the end of the last round; then removes the checkpoints. Throws PeerError on every rank: with the exit
  /// code `interrupted` after a checkpoint is written, or as a phase failed, where a results.h5 without a
  /// round is removed.
  void all_run();

 private:
  void all_run_rounds();
  /// Collective. The round's row, and a checkpoint before it where one is due; all users' records.
  [[nodiscard]] std::vector<results::UserRound> all_write();
  /// Collective. Writes down where an interrupted run stands, and says how it can go on.
  void all_leave();
  [[nodiscard]] bool is_checkpoint_due(std::int64_t round) const;
  [[nodiscard]] bool stores_weights(std::int64_t round) const;
  [[nodiscard]] std::int64_t steps_ahead() const;

  Setup setup_;
};

}  // namespace comigs::run
