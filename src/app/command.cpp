#include "command.hpp"

#include <csignal>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/session.hpp"

namespace comigs::app {

int run_with_mpi(int& argc, char**& argv, const std::function<void(comm::Communicator&)>& body) {
  // A reader that is gone must not end a run whose results are in files.
  std::signal(SIGPIPE, SIG_IGN);
  const comm::Session session(argc, argv);
  comm::Communicator world = comm::Communicator::world();
  start_log(fmt::format("rank {}", world.rank()), world.is_first());
  std::optional<ExitCode> agreed;
  const std::optional<comm::Failure> alone = comm::capture([&] {
    try {
      body(world);
    } catch (const PeerError& error) {
      agreed = error.exit_code();
    }
  });
  if (!alone) return static_cast<int>(agreed.value_or(ExitCode::done));
  spdlog::error("{}", alone->message);
  if (world.size() > 1) comm::Session::abort(static_cast<int>(alone->exit_code));
  return static_cast<int>(alone->exit_code);
}

}  // namespace comigs::app
