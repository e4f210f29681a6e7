// Being asked to stop: by the batch system, a person, or another rank that was asked or failed.
#pragma once

#include <string>

#include "comigs/comm/communicator.hpp"

namespace comigs::comm {

/// Takes over SIGTERM and SIGUSR1; one at a time in a process. Each only leaves a mark, so that a run can
/// come to a place from which it can go on later. After its life they are ignored: the run is over, and its
/// exit code is to be that of the run.
class Interruption {
 public:
  /// Collective: messages about stopping have a communicator of their own.
  explicit Interruption(const Communicator& world);
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

  /// Local. Keeps both signals waiting until there is an Interruption, or `leave_at_once`: before anything
  /// else, in the main thread.
  static void hold_signals();
  /// Local. For a command of one process that has nothing to write down on its way: either signal ends it at
  /// once, with a message and the exit code for what can be done again.
  static void leave_at_once();
  /// Local. The same command from here on: it is writing, and soon done. SIGINT is ignored, too.
  static void finish_undisturbed();

  /// Local, cheap. Whether this process has been signalled or another rank has told; once true, always true.
  /// The first time it is found here, the others are told.
  [[nodiscard]] bool is_asked();
  /// Local. Other ranks' `is_asked` becomes true soon.
  void tell_others();
  /// Name of the signal that came to this process; empty: none did.
  [[nodiscard]] std::string signal() const;
  /// Collective. Name of the signal that came to any rank; "a signal" where none says so.
  [[nodiscard]] std::string all_reason() const;

 private:
  Communicator messages_;
  bool asked_ = false, told_ = false;
};

}  // namespace comigs::comm
