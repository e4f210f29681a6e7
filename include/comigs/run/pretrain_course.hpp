// Pretraining from where it stands to its last step.
#pragma once

#include <cstdint>

#include "comigs/base/log.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/reduction.hpp"
#include "comigs/run/pretrain_checkpoint.hpp"
#include "comigs/run/pretrain_recipe.hpp"
#include "comigs/train/pretraining.hpp"

namespace comigs::run {

/// Who watches the steps; not to communicate.
class PretrainWatcher {
 public:
  using Position = PretrainCheckpoint::Position;

  PretrainWatcher() = default;
  PretrainWatcher(const PretrainWatcher&) = delete;
  PretrainWatcher& operator=(const PretrainWatcher&) = delete;
  virtual ~PretrainWatcher() = default;

  /// It goes on where an interrupted call stood.
  virtual void goes_on(const Position& position) = 0;
  /// Before the first step; `steps` are to come.
  virtual void begins(std::int64_t steps) = 0;
  virtual void stepped(const Position& position) = 0;
  /// On rank 0 alone. `seconds`: since it began.
  virtual void evaluated(const Position& position, double perplexity, double seconds) = 0;
  /// After the last step, or where the steps are left before it.
  virtual void ends() = 0;
};

/// Keeps references to what it is given, which must live longer.
class PretrainCourse {
 public:
  using Position = PretrainCheckpoint::Position;
  struct Setup {
    const comm::Communicator& world;
    comm::Memory memory;  ///< of the weights
    const PretrainRecipe& recipe;
    train::Pretraining& pretraining;
    const PretrainCheckpoint& checkpoint;
    comm::Interruption& interruption;
    PretrainWatcher& watcher;
  };
  explicit PretrainCourse(const Setup& setup) : setup_(setup) {}

  /// Collective. From where an interrupted call stood, or from the start, to the last step, evaluated as the
  /// plan says. Throws PeerError on every rank; with the exit code `interrupted` after a checkpoint is
  /// written.
  void all_run();

 private:
  /// Collective. Every rank has the same numbers: the first reads and writes them.
  [[nodiscard]] Position all_restore();
  void all_run_steps(Position& position);
  double all_step(std::int64_t step, const data::TokenShard& text, comm::Reduction& reduction);
  void all_evaluate(const Position& position, const data::TokenShard& held_out, const Stopwatch& lap);
  /// Writes down where an interrupted call stands, and says how it can go on.
  void all_leave(const Position& position);
  [[nodiscard]] bool is_evaluated(std::int64_t steps) const;

  Setup setup_;
};

}  // namespace comigs::run
