#include "comigs/io/trial.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>

#include "comigs/base/error.hpp"

namespace comigs::io {

namespace {

// The child: no core file, nothing on the terminal, none of this process's handlers and ends.
[[noreturn]] void read_and_exit(const std::function<void()>& read) {
  const rlimit no_core{};
  setrlimit(RLIMIT_CORE, &no_core);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTERM, SIGINT, SIGUSR1})
    std::signal(signal, SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // it may loop, and holds what its parent has locked
  if (const int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC); nothing >= 0) {
    dup2(nothing, STDOUT_FILENO);
    dup2(nothing, STDERR_FILENO);
  }
  try {
    read();
  } catch (...) {  // the parent comes upon it, too
  }
  _exit(0);
}

// The state that the child ended in; nothing where it is still at work when the time is up. As long as this
// process is suspended the time goes on, so the child is asked once more.
std::optional<int> wait_for(pid_t child, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds longest_pause(5000);
  std::chrono::microseconds pause(100);
  for (const auto end = Clock::now() + limit;; pause = std::min(2 * pause, longest_pause)) {
    const bool is_last = Clock::now() >= end;
    int state = 0;
    const pid_t ended = waitpid(child, &state, WNOHANG);
    if (ended == child) return state;
    if (ended < 0 && errno != EINTR) return 0;  // somebody else waits for all children: nothing is known
    if (is_last) return std::nullopt;
    std::this_thread::sleep_for(pause);
  }
}

// Not an end that somebody else gave the child: a time limit, Ctrl-C, want of memory.
bool is_crash(int signal) {
  constexpr std::array crashes = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS};
  return std::ranges::find(crashes, signal) != crashes.end();
}

}  // namespace

void try_apart(const std::filesystem::path& file, const std::function<void()>& read,
               std::chrono::milliseconds limit) {
  const pid_t child = fork();
  if (child == 0) read_and_exit(read);
  if (child < 0) return;  // no room for a process: read as it is
  const std::optional<int> state = wait_for(child, limit);
  if (!state) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    throw DataError(
        fmt::format("{}: reading it takes longer than {} s: it is damaged, or its disk is too slow",
                    file.string(), std::chrono::ceil<std::chrono::seconds>(limit).count()));
  }
  if (WIFSIGNALED(*state) && is_crash(WTERMSIG(*state)))
    throw DataError(fmt::format("{}: it is damaged: reading it ends in a crash ({})", file.string(),
                                ::strsignal(WTERMSIG(*state))));
  if (WIFEXITED(*state) && WEXITSTATUS(*state) != 0)  // a sanitizer's
    throw DataError(
        fmt::format("{}: it is damaged: reading it ends with code {}", file.string(), WEXITSTATUS(*state)));
}

}  // namespace comigs::io
