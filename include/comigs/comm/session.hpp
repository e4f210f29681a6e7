// The life of MPI in this process.
#pragma once

#include <functional>
#include <limits>
#include <string>

namespace comigs::comm {

/// Initialises MPI (thread level FUNNELED: autograd threads never call it) and finalizes it at the end of its
/// life. Outermost object of a program. Leaving by an exception does not finalize, because other ranks may be
/// in a collective. Throws ConfigError, on the first rank, where a launcher has started several processes
/// that cannot find each other, and ends the others with the same code; CommError where MPI gives less than
/// the thread level asked for. Where a rank does not come to start or end within `patience_seconds`, the
/// process is ended and says so, by what `name_of` calls the rank.
class Session {
 public:
  using Names = std::function<std::string(int rank)>;

  Session(
      int& argc, char**& argv, double patience_seconds = std::numeric_limits<double>::infinity(),
      Names name_of = [](int rank) { return "rank " + std::to_string(rank); });
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Ends every rank at once, without a goodbye. For errors that were not agreed on.
  [[noreturn]] static void abort(int exit_code);

 private:
  double patience_seconds_;
  Names name_of_;
};

/// "Open MPI v4.1.4": the library in use, for records.
[[nodiscard]] std::string library_version();

}  // namespace comigs::comm
