#include "comigs/comm/interruption.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <string_view>

#include "comigs/base/error.hpp"

namespace comigs::comm {

namespace {

constexpr std::array handled = {SIGTERM, SIGUSR1};
constexpr int tag = 0;

volatile std::sig_atomic_t last_signal = 0;

void remember(int signal) { last_signal = signal; }

void install(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : handled) sigaction(signal, &action, nullptr);
}

// Also before the sanitizers' runtime is there.
[[gnu::no_sanitize("address")]] void mask(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : handled) sigaddset(&signals, signal);
  pthread_sigmask(how, &signals, nullptr);
}

std::string_view name_of(int signal) {
  switch (signal) {
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return {};
  }
}

// Nothing but what a signal handler may do.
void leave(int signal) {
  for (const std::string_view part : {std::string_view("comigs: stopped by "), name_of(signal),
                                      std::string_view("; nothing was written, the same command does it\n")})
    if (::write(STDERR_FILENO, part.data(), part.size()) < 0) break;
  ::_exit(static_cast<int>(ExitCode::interrupted));
}

}  // namespace

[[gnu::no_sanitize("address")]] void Interruption::hold_signals() { mask(SIG_BLOCK); }

void Interruption::leave_at_once() {
  install(&leave);
  mask(SIG_UNBLOCK);
}

void Interruption::finish_undisturbed() {
  install(SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
}

Interruption::Interruption(const Communicator& world) : messages_(world.all_duplicate()) {
  last_signal = 0;
  install(&remember);
  mask(SIG_UNBLOCK);
}

Interruption::~Interruption() { install(SIG_IGN); }

bool Interruption::is_asked() {
  if (asked_) return true;
  int arrived = 0;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, tag, messages_.handle(), &arrived, MPI_STATUS_IGNORE), "MPI_Iprobe");
  asked_ = arrived != 0 || last_signal != 0;
  if (last_signal != 0) tell_others();
  return asked_;
}

void Interruption::tell_others() {
  if (told_) return;
  told_ = true;
  for (int rank = 0; rank < messages_.size(); ++rank) {
    if (rank == messages_.rank()) continue;
    // Empty messages leave at once; nobody waits for them.
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, rank, tag, messages_.handle(), &request), "MPI_Isend");
    check_mpi(MPI_Request_free(&request), "MPI_Request_free");
  }
}

std::string Interruption::signal() const { return std::string(name_of(last_signal)); }

std::string Interruption::all_reason() const {
  const std::vector<std::string> names = messages_.all_gather(signal());
  const auto found = std::ranges::find_if(names, [](const std::string& name) { return !name.empty(); });
  return found == names.end() ? "a signal" : *found;
}

}  // namespace comigs::comm
