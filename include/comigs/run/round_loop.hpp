// A round: the user trains, what is shared is averaged, the user is evaluated (Algorithm 1).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "comigs/comm/agreement.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/config/config.hpp"
#include "comigs/results/user_round.hpp"
#include "comigs/run/attendance.hpp"
#include "comigs/run/present_aggregation.hpp"
#include "comigs/run/roster.hpp"
#include "comigs/run/seat.hpp"
#include "comigs/run/shared_evaluation.hpp"

namespace comigs::run {

/// The way of a seat's user through the rounds of a run. Keeps references to what it is given, which must
/// live longer.
class RoundLoop {
 public:
  struct Setup {
    const comm::Communicator& world;
    const Roster& roster;
    const config::Run& options;
    Seat& seat;
    Attendance& attendance;
    PresentAggregation& aggregation;
    const SharedEvaluation& evaluation;
    comm::Interruption& interruption;
  };

  /// Sets the seat's trainer up to exchange gradients where the rule asks for it, and to stop when the run is
  /// interrupted.
  explicit RoundLoop(const Setup& setup);

  /// Collective over the world. Goes on with the round from where the seat's progress says up to its end:
  /// local training, aggregation and, where the round is one of those evaluated, evaluation; round 0 is
  /// evaluated only. Throws PeerError on every rank: with the exit code `interrupted` if the run is to stop,
  /// where the seat is such that a later call goes on to the same numbers; else if training or evaluation
  /// fails on any rank. An error inside an aggregation is the rank's own, for the program to end the others
  /// by.
  void all_finish_round();

 private:
  /// Collective if gradients are exchanged, else local up to the agreement at its end.
  void all_train();
  void train();
  /// Collective. Users whose training failed drop out, if the configuration has it so.
  void all_drop_failed(std::optional<comm::Failure>& failure);
  /// Collective. Every present user's model.
  void all_evaluate();
  /// Collective. The same on the splits that nobody trains on; `take` gets what they say of who is present.
  void all_evaluate_held_out(const std::function<void(const HeldOutReports&)>& take);
  /// Collective. Users' models before the last aggregation, if that changes anything.
  void all_evaluate_before_last();
  void all_aggregate();
  /// Collective agreement on local `work`; a failure stops the others' work early.
  void all_do(const std::function<void()>& work);
  void all_agree_on(const std::optional<comm::Failure>& failure);
  void finish_record();
  [[nodiscard]] results::UserRound& record() { return setup_.seat.progress().record; }
  [[nodiscard]] bool is_last(std::int64_t round) const { return round == setup_.options.rounds; }
  [[nodiscard]] bool is_evaluated(std::int64_t round) const {
    return round % setup_.options.evaluate_every == 0 || is_last(round);
  }
  [[nodiscard]] bool is_present() const {
    return setup_.attendance.is_present(setup_.seat.user(), setup_.seat.progress().record.round);
  }
  /// Asked by work that ranks do on their own.
  [[nodiscard]] std::function<bool()> when_asked() const;

  Setup setup_;
};

}  // namespace comigs::run
