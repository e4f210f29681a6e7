#include "comigs/comm/placement.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "comigs/base/error.hpp"

namespace comigs::comm {

namespace {

// Machines have more cores than the fixed cpu_set_t holds.
constexpr int most_cores = 1 << 16;
using CoreSet = std::unique_ptr<cpu_set_t, decltype([](cpu_set_t* set) { CPU_FREE(set); })>;

CoreSet empty_set() {
  CoreSet set(CPU_ALLOC(most_cores));
  CPU_ZERO_S(CPU_ALLOC_SIZE(most_cores), set.get());
  return set;
}

// The cores the operating system lets this process use (affinity set by the launcher, Slurm or a cpuset).
std::vector<int> allowed_cores() {
  const CoreSet set = empty_set();
  if (sched_getaffinity(0, CPU_ALLOC_SIZE(most_cores), set.get()) != 0)
    throw CommError("sched_getaffinity failed");
  std::vector<int> cores;
  for (int core = 0; core < most_cores; ++core)
    if (CPU_ISSET_S(core, CPU_ALLOC_SIZE(most_cores), set.get())) cores.push_back(core);
  return cores;
}

void bind_to(std::span<const int> cores) {
  const CoreSet set = empty_set();
  for (const int core : cores) CPU_SET_S(core, CPU_ALLOC_SIZE(most_cores), set.get());
  if (sched_setaffinity(0, CPU_ALLOC_SIZE(most_cores), set.get()) != 0)
    throw CommError("sched_setaffinity failed");
}

std::string as_text(std::span<const int> cores) {
  std::string text;
  for (const int core : cores) text += std::to_string(core) + ',';
  return text;
}

// Most cores for each of the node's ranks: they share what processor time its containers are given.
std::size_t most_by_quota(int ranks) {
  const std::optional<double> quota = quota_of_cores();
  return quota ? static_cast<std::size_t>(std::max(*quota, 1.0)) / static_cast<std::size_t>(ranks)
               : most_cores;
}

std::size_t most_per_rank() {
  constexpr std::size_t no_limit = most_cores;
  const char* text = std::getenv("SLURM_CPUS_PER_TASK");
  const long count = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return count > 0 ? static_cast<std::size_t>(count) : no_limit;
}

}  // namespace

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

Placement place_alone() { return {.host = host_name(), .cores = std::max(1, share_of_cores(1))}; }

Placement all_place(const Communicator& world) {
  const Communicator node = world.all_split_by_node();
  Placement placement{.host = host_name(), .local_rank = node.rank(), .local_size = node.size()};
  const std::vector<int> cores = allowed_cores();
  const std::string own = as_text(cores);
  const std::vector<std::string> sets = node.all_gather(own);
  const auto sharers = static_cast<std::size_t>(std::count(sets.begin(), sets.end(), own));
  const auto place = static_cast<std::size_t>(std::count(sets.begin(), sets.begin() + node.rank(), own));
  const std::size_t share = std::min({cores.size() / sharers, most_by_quota(node.size()), most_per_rank()});
  placement.oversubscribed = share == 0;
  placement.cores = static_cast<int>(std::max<std::size_t>(share, 1));
  if (sharers > 1 && share > 0) bind_to(std::span(cores).subspan(place * share, share));
  return placement;
}

int cores_of_node() { return static_cast<int>(std::min(allowed_cores().size(), most_by_quota(1))); }

int share_of_cores(int ranks) {
  return static_cast<int>(std::min(
      {allowed_cores().size() / static_cast<std::size_t>(ranks), most_by_quota(ranks), most_per_rank()}));
}

}  // namespace comigs::comm
