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
  /// Collective. Does the work, which does not communicate, on the ranks whose user is present; a failure
  /// anywhere ends it everywhere.
  using AllDo = std::function<void(const std::function<void()>&)>;

  /// Collective. Finds out which texts several users are evaluated on.
  explicit SharedEvaluation(const Setup& setup);

  /// Collective. `take` gets what the splits say of the seat's user, whose model is as it is now: the same
  /// bits whoever else has its model and its text. `stop` is asked before each batch.
  void all_evaluate(const AllDo& all_do, const std::function<bool()>& stop,
                    const std::function<void(const HeldOutReports&)>& take) const;

 private:
  struct Text {
    const data::TokenShard& split;
    std::string key;  // of what is evaluated, and by what, but for the model's numbers
    bool is_shared;   // several users' keys are alike; the same on every rank
  };

  [[nodiscard]] Text all_look_at(const data::TokenShard& split) const;
  /// Collective. Who evaluates the text with this user, the user among them; none: nobody shares it. `model`:
  /// a digest of its numbers; empty: the user is not present.
  [[nodiscard]] std::optional<comm::Communicator> all_group(const Text& text, const std::string& model) const;

  Setup setup_;
  Text validation_, test_;
};

}  // namespace comigs::run
