#include "comigs/comm/session.hpp"

#include <mpi.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>

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

// Variables of an mpirun may be those of another MPI, or inherited from a program that it started.
void check_it_is_not_alone(const Launch& launch) {
  if (launch.by_mpirun && launch.ranks > 1)
    throw ConfigError(fmt::format(
        "OMPI_COMM_WORLD_SIZE={} says that mpirun started as many ranks, but this process finds no other: "
        "that mpirun is of another MPI, or the variable is left from another program (unset it)",
        launch.ranks));
  check_launch({.ranks = launch.ranks, .rank = launch.rank});
}

// Open MPI writes into the folder that TMPDIR names, which it makes where it is not there; where it cannot,
// its report is a page that does not name the variable.
void check_temporary_folder() {
  const char* named = std::getenv("TMPDIR");
  if (named == nullptr || *named == '\0') return;
  std::filesystem::path folder = std::filesystem::absolute(named);
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  std::string inside = (folder / "comigs-XXXXXX").string();
  if (mkdtemp(inside.data()) == nullptr)
    throw ConfigError(fmt::format("TMPDIR={}: {}, expected a folder that Open MPI can write to", named,
                                  std::strerror(errno)));
  rmdir(inside.c_str());
}

}  // namespace

Session::Session(int& argc, char**& argv, double patience_seconds, Names name_of)
    : patience_seconds_(patience_seconds), name_of_(std::move(name_of)) {
  const Launch launch = launched();
  check_launch(launch);
  // Where PMIx speaks, whoever started this has chosen the folder.
  if (!launch.has_pmi && launch.ranks == 1) check_temporary_folder();
  int provided = 0, ranks = 1;
  {
    const Guard guard("MPI_Init_thread", patience_seconds_, launch.rank, name_of_);
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  }
  if (provided < MPI_THREAD_FUNNELED)
    throw CommError("this MPI does not offer the thread level MPI_THREAD_FUNNELED");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (ranks == 1) check_it_is_not_alone(launch);
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
