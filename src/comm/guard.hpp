// A limit for calls of MPI that cannot be left: for those with a nonblocking form see waiting.cpp.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

namespace comigs::comm {

/// While it lives, and longer than ranks wait for each other, it ends this process with exit code 1 and one
/// message as soon as ranks of this node are found to be stopped, which it names, or a minute later: a thread
/// must not ask the others through MPI.
class Guard {
 public:
  /// `seconds`: the patience; `name_of`: what messages call the ranks of the world.
  Guard(const char* call, double seconds, int rank, const std::function<std::string(int)>& name_of);
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  ~Guard() = default;

 private:
  std::jthread thread_;
};

/// Additional seconds that a rank waits, so that the first speaks for all.
[[nodiscard]] double grace_seconds(int rank);

}  // namespace comigs::comm
