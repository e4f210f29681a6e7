// Evaluation of the splits that users do not train on: those who have the same model and the same text do it
// together, a part of the batches each.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "comigs/adapter/user_model.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/run/roster.hpp"
#include "comigs/run/seat.hpp"

namespace comigs::run {

/// Keeps references to what it is given, which must live longer.
class SharedEvaluation {
 public:
  struct Setup {
    const comm::Communicator& world;
    const Roster& roster;
    std::span<const adapter::UserModel> users;  ///< of the run
    const Seat& seat;
  };
  /// Collective work of every rank, in which none communicates and which a failure anywhere ends everywhere.
  using AllDo = std::function<void(const std::function<void()>&)>;

  /// Collective. Finds out which texts several users are evaluated on.
  explicit SharedEvaluation(const Setup& setup);

  /// Collective. What the splits say of the seat's user, whose model is as it is now; nothing if the user is
  /// not present. The same bits whoever else has its model and its text, on processors of one kind. Batches
  /// are run by `all_do`, and `stop` is asked before each.
  [[nodiscard]] std::optional<HeldOutReports> all_evaluate(bool is_present, const AllDo& all_do,
                                                           const std::function<bool()>& stop) const;

 private:
  struct Text {
    const data::TokenShard& split;
    std::string key;  // of what is evaluated, but for the model's numbers
    bool is_shared;   // several users' keys are alike; the same on every rank
  };

  [[nodiscard]] Text all_look_at(const data::TokenShard& split) const;
  /// Collective. Who evaluates the text with this user, the user among them; none: nobody shares it.
  [[nodiscard]] std::optional<comm::Communicator> all_group(const Text& text, bool is_present) const;

  Setup setup_;
  Text validation_, test_;
};

}  // namespace comigs::run
