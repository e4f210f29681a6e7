#include "command.hpp"

#include <csignal>
#include <limits>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/launch.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/comm/session.hpp"

namespace comigs::app {

namespace {

// Without a host, where that is not known yet.
std::string name_of(const Start& start, int rank, const std::string& host) {
  const auto index = static_cast<std::size_t>(rank);
  const std::string user = index < start.users.size() ? "user " + start.users[index] : "",
                    place = host.empty() ? "" : "on " + host,
                    space = user.empty() || place.empty() ? "" : " ";
  return user.empty() && place.empty() ? fmt::format("rank {}", rank)
                                       : fmt::format("rank {} ({}{}{})", rank, user, space, place);
}

void all_introduce(comm::Communicator& world, const Start& start) {
  std::vector<std::string> names;
  for (int rank = 0; rank < world.size(); ++rank) names.push_back(name_of(start, rank, ""));
  world.name_ranks(std::move(names));
  world.name_ranks(world.all_gather(name_of(start, world.rank(), comm::host_name())));
}

}  // namespace

int run_with_mpi(int& argc, char**& argv, const Start& start, const AllRun& body) {
  // A reader that is gone must not end a run whose results are in files.
  std::signal(SIGPIPE, SIG_IGN);
  const double patience =
      start.patience_seconds > 0.0 ? start.patience_seconds : std::numeric_limits<double>::infinity();
  // What speaks of a rank before MPI does has found it on this host.
  const comm::Session session(argc, argv, patience,
                              [start](int rank) { return name_of(start, rank, comm::host_name()); });
  comm::Communicator world = comm::Communicator::world();
  world.wait_at_most(patience);
  start_log(fmt::format("rank {}", world.rank()), world.is_first());
  std::optional<comm::Interruption> interruption;
  std::optional<ExitCode> agreed;
  const std::optional<comm::Failure> alone = comm::capture([&] {
    try {
      all_introduce(world, start);
      interruption.emplace(world);
      // A rank that waits passes a signal on to those it waits for.
      world.while_waiting([&] { (void)interruption->is_asked(); });
      body(world, *interruption);
    } catch (const PeerError& error) {
      agreed = error.exit_code();
    }
    world.all_meet();
  });
  if (!alone) return static_cast<int>(agreed.value_or(ExitCode::done));
  spdlog::error("{}", alone->message);
  if (world.size() > 1) comm::Session::abort(static_cast<int>(alone->exit_code));
  return static_cast<int>(alone->exit_code);
}

int run_alone(const char* command, const std::function<int()>& body) {
  const comm::Launch launch = comm::launched();
  // Variables that are left from another mpirun speak of ranks that are not there: then this one tells.
  const bool others_tell = launch.rank > 0 && std::getenv("PMIX_NAMESPACE") != nullptr;
  start_log(command, !others_tell);
  if (launch.by_mpirun && launch.ranks > 1) {
    if (others_tell) return static_cast<int>(ExitCode::bad_input);
    throw ConfigError(fmt::format("{} MPI ranks: 'comigs {}' is one process, which needs no mpirun",
                                  launch.ranks, command));
  }
  int code = static_cast<int>(ExitCode::failed);
  if (const std::optional<comm::Failure> failure = comm::capture([&] { code = body(); }))
    throw Error(failure->exit_code, failure->message);
  return code;
}

}  // namespace comigs::app
