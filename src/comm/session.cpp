#include "comigs/comm/session.hpp"

#include <mpi.h>

#include <cstdlib>
#include <exception>

#include "comigs/base/error.hpp"
#include "comigs/comm/launch.hpp"
#include "guard.hpp"

namespace comigs::comm {

namespace {

// Without PMI each of several processes that srun starts would take itself for the only one; a single one
// needs nobody, but Open MPI looks for those who started it.
void check_launch(const Launch& launch) {
  if (launch.has_pmi) return;
  if (launch.ranks == 1) {
    unsetenv("SLURM_STEP_ID");
  } else if (launch.rank > 0) {
    std::_Exit(static_cast<int>(ExitCode::bad_input));
  } else {
    throw ConfigError(fmt::format(
        "{} processes were started that cannot find each other; start them by 'srun --mpi=pmix' ('srun "
        "--mpi=list' shows whether there is PMIx) or by mpirun",
        launch.ranks));
  }
}

}  // namespace

Session::Session(int& argc, char**& argv, double patience_seconds, Names name_of)
    : patience_seconds_(patience_seconds), name_of_(std::move(name_of)) {
  const Launch launch = launched();
  check_launch(launch);
  int provided = 0, ranks = 1;
  {
    const Guard guard("MPI_Init_thread", patience_seconds_, launch.rank, name_of_);
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  }
  if (provided < MPI_THREAD_FUNNELED)
    throw CommError("this MPI does not offer the thread level MPI_THREAD_FUNNELED");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (ranks == 1) check_launch({.ranks = launch.ranks, .rank = launch.rank});
}

Session::~Session() {
  if (std::uncaught_exceptions() > 0) return;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const Guard guard("MPI_Finalize", patience_seconds_, rank, name_of_);
  MPI_Finalize();
}

void Session::abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::string library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string whole(text, static_cast<std::size_t>(length));
  return whole.substr(0, whole.find(','));
}

}  // namespace comigs::comm
