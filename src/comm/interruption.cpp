#include "comigs/comm/interruption.hpp"

#include <array>
#include <csignal>

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

void mask(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : handled) sigaddset(&signals, signal);
  pthread_sigmask(how, &signals, nullptr);
}

}  // namespace

void Interruption::hold_signals() { mask(SIG_BLOCK); }

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

std::string Interruption::signal() const {
  switch (last_signal) {
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return {};
  }
}

}  // namespace comigs::comm
