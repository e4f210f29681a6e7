// Waiting for other ranks: never for ever, and never without knowing for whom.
#include <fmt/ranges.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <thread>

#include "comigs/base/error.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/launch.hpp"
#include "comigs/comm/patience.hpp"
#include "guard.hpp"

namespace comigs::comm {

namespace {

using Clock = Patience::Clock;

// A rank whose patience has run out calls the others by their ranks in the world, and those that wait
// themselves, wherever they do, answer.
constexpr int call_tag = 3, answer_tag = 4;
constexpr double most_seconds_to_answer = 2.0;

// Empty messages leave at once; nobody waits for them.
void send_empty(int rank, int tag) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, rank, tag, MPI_COMM_WORLD, &request), "MPI_Isend");
  check_mpi(MPI_Request_free(&request), "MPI_Request_free");
}

// Who sent the next message of this kind that has come.
std::optional<int> sender_of_next(int tag) {
  int arrived = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &arrived, &status), "MPI_Iprobe");
  if (arrived == 0) return std::nullopt;
  check_mpi(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
            "MPI_Recv");
  return status.MPI_SOURCE;
}

bool are_done(std::span<MPI_Request> requests) {
  int done = 0;
  check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
            "MPI_Testall");
  return done != 0;
}

void answer_calls() {
  while (const std::optional<int> caller = sender_of_next(call_tag)) send_empty(*caller, answer_tag);
}

// Looks again and again until the condition holds: busily at first, since most waits are short, then with
// pauses of an eighth of what it has waited so far. False: the patience ran out.
bool wait_until(const std::function<bool()>& condition, double seconds, const std::function<void()>& look) {
  constexpr std::chrono::microseconds shortest_pause(50), longest_pause(1000);
  Patience patience(seconds);
  const Clock::time_point begun = Clock::now();
  while (!condition()) {
    const Clock::time_point now = Clock::now();
    if (patience.is_out(now)) return false;
    const auto pause = std::min<Clock::duration>((now - begun) / 8, longest_pause);
    if (pause < shortest_pause) {
      sched_yield();
      continue;
    }
    answer_calls();
    if (look) look();
    std::this_thread::sleep_for(pause);
  }
  return true;
}

// Whom somebody has stopped, look after look, while this rank goes on: a signal to it alone, for whoever
// suspends a run stops all its ranks. One that a debugger holds may take its time, and one that is let go on
// between the looks (cpulimit) is only slow.
class Stopped {
 public:
  explicit Stopped(double seconds) : looks_until_told_(1 + static_cast<int>(std::ceil(seconds))) {}

  // World ranks that were stopped at each look of the last seconds.
  std::vector<int> look() {
    if (!until_next_look_.is_out()) return {};
    until_next_look_ = Patience(seconds_between_looks);
    std::map<int, Seen> seen;
    std::vector<int> told;
    for (const auto& [rank, ticks] : ranks_in_state(stopped)) {
      const auto before = seen_.find(rank);
      const bool still = before != seen_.end() && before->second.ticks == ticks;
      seen[rank] = {.looks = still ? before->second.looks + 1 : 1, .ticks = ticks};
      if (seen[rank].looks >= looks_until_told_) told.push_back(rank);
    }
    seen_ = std::move(seen);
    return told;
  }

 private:
  static constexpr double seconds_between_looks = 1.0;
  int looks_until_told_;
  Patience until_next_look_{seconds_between_looks};
  struct Seen {
    int looks;  // one after the other
    std::uint64_t ticks;
  };
  std::map<int, Seen> seen_;  // of each that is stopped
};

}  // namespace

bool Communicator::wait(std::span<MPI_Request> requests, double seconds) const {
  constexpr double most_seconds_stopped = 5.0;
  Stopped stopped_ones(most_seconds_stopped + grace_seconds(rank_));
  return wait_until([&] { return are_done(requests); }, seconds,
                    [&] {
                      if (look_) look_();
                      std::vector<std::string> names;
                      for (const int rank : stopped_ones.look())
                        if (std::ranges::find(members_, rank) != members_.end())
                          names.push_back(namer()(rank));
                      if (!names.empty())
                        throw CommError(fmt::format(
                            "{} had not come to where all ranks meet: stopped by a signal (SIGSTOP)",
                            fmt::join(names, ", ")));
                    });
}

void Communicator::finish(MPI_Request& request, const char* call) const {
  if (!wait({&request, 1}, patience_seconds_ + grace_seconds(rank_)))
    throw late(silent_ranks(), patience_seconds_, call);
}

std::vector<int> Communicator::silent_ranks() const {
  std::vector<int> silent;
  for (int rank = 0; rank < size_; ++rank)
    if (rank != rank_) silent.push_back(rank);
  for (const int rank : silent) send_empty(members_[static_cast<std::size_t>(rank)], call_tag);
  const auto all_answered = [&] {
    while (const std::optional<int> sender = sender_of_next(answer_tag))
      std::erase_if(silent, [&](int rank) { return members_[static_cast<std::size_t>(rank)] == *sender; });
    return silent.empty();
  };
  (void)wait_until(all_answered, std::min(most_seconds_to_answer, patience_seconds_), look_);
  return silent;
}

CommError Communicator::late(const std::vector<int>& ranks, double seconds, const char* call) const {
  if (ranks.empty())
    return CommError(fmt::format("{} was not done after {:g} s, though all ranks answer", call, seconds));
  std::vector<std::string> names;
  for (const int rank : ranks) names.push_back(name_of(rank));
  return CommError(fmt::format(
      "after {:g} s {} had not come to where all ranks meet; a longer --patience waits for slower "
      "ones",
      seconds, fmt::join(names, ", ")));
}

void Communicator::all_guarded(const char* call, const std::function<int()>& blocking) const {
  all_meet();
  const Guard guard(call, patience_seconds_, members_[static_cast<std::size_t>(rank_)], namer());
  check_mpi(blocking(), call);
}

// Messages to rank 0 and back instead of a barrier: only so can it tell at once who is missing.
void Communicator::all_meet(double seconds) const {
  constexpr int come_tag = 1, go_tag = 2;
  std::vector<MPI_Request> come, go;
  const auto post = [&](std::vector<MPI_Request>& requests, auto&& call, int rank, int tag,
                        const char* name) {
    requests.push_back(MPI_REQUEST_NULL);
    check_mpi(call(nullptr, 0, MPI_BYTE, rank, tag, handle_, &requests.back()), name);
  };
  if (!is_first()) {
    post(come, MPI_Isend, 0, come_tag, "MPI_Isend");
    post(come, MPI_Irecv, 0, go_tag, "MPI_Irecv");
    if (!wait(come, seconds + grace_seconds(rank_))) throw late(silent_ranks(), seconds, "a meeting");
    return;
  }
  for (int rank = 1; rank < size_; ++rank) post(come, MPI_Irecv, rank, come_tag, "MPI_Irecv");
  if (!wait(come, seconds)) {
    std::vector<int> missing;
    for (int rank = 1; rank < size_; ++rank)
      if (!are_done({&come[static_cast<std::size_t>(rank) - 1], 1})) missing.push_back(rank);
    throw late(missing, seconds, "a meeting");
  }
  for (int rank = 1; rank < size_; ++rank) post(go, MPI_Isend, rank, go_tag, "MPI_Isend");
  if (!wait(go, seconds)) throw late(silent_ranks(), seconds, "a meeting");
}

}  // namespace comigs::comm
