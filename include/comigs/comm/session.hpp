// The life of MPI in this process.
#pragma once

#include <string>

namespace comigs::comm {

/// Initialises MPI (thread level FUNNELED: autograd threads never call it) and finalizes it at the end of its
/// life. Outermost object of a program. Leaving by an exception does not finalize, because other ranks may be
/// in a collective. Throws CommError where MPI gives less than the thread level asked for.
class Session {
 public:
  Session(int& argc, char**& argv);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Ends every rank at once, without a goodbye. For errors that were not agreed on.
  [[noreturn]] static void abort(int exit_code);
};

/// "Open MPI v4.1.4": the library in use, for records.
[[nodiscard]] std::string library_version();

}  // namespace comigs::comm
