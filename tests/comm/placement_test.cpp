// Every rank gets a core at least, and no two ranks the same ones where there are enough.
#include "comigs/comm/placement.hpp"

#include <sched.h>

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <fstream>
#include <vector>

#include "support/temporary_folder.hpp"

namespace comigs::comm {

namespace {

// Gives the process its cores back when a test has bound it to fewer.
struct KeptAffinity {
  KeptAffinity() { sched_getaffinity(0, sizeof cores, &cores); }
  ~KeptAffinity() { sched_setaffinity(0, sizeof cores, &cores); }
  cpu_set_t cores{};
};

// 1 at the number of each core that this process may use.
std::vector<std::int64_t> used_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<std::int64_t> used(CPU_SETSIZE);
  for (std::size_t core = 0; core < used.size(); ++core) used[core] = CPU_ISSET(core, &set) ? 1 : 0;
  return used;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(placement, KeptAffinity)

BOOST_AUTO_TEST_CASE(ranks_of_a_node_share_its_cores) {
  const Communicator world = Communicator::world();
  const int given = CPU_COUNT(&cores);
  const Placement placement = all_place(world);
  BOOST_TEST(!placement.host.empty());
  BOOST_TEST(placement.local_rank == world.rank());
  BOOST_TEST(placement.local_size == world.size());
  BOOST_TEST(placement.cores >= 1);
  const std::vector<std::int64_t> own = used_cores();
  const std::vector<std::int64_t> all = world.all_gather(std::span<const std::int64_t>(own));
  // Meaningful where the launcher gave all ranks the same cores, as the test environment asks it to.
  BOOST_TEST(placement.oversubscribed == (world.size() > given));
  BOOST_TEST(placement.cores == std::max(given / world.size(), 1));
  for (std::size_t core = 0; core < own.size() && !placement.oversubscribed; ++core) {
    std::int64_t users = 0;
    for (std::size_t i = core; i < all.size(); i += own.size()) users += all[i];
    BOOST_TEST(users <= 1, "core " << core << " belongs to " << users << " ranks");
  }
  if (!placement.oversubscribed) {
    cpu_set_t bound;
    sched_getaffinity(0, sizeof bound, &bound);
    BOOST_TEST(CPU_COUNT(&bound) == placement.cores);
  }
}

BOOST_AUTO_TEST_CASE(ranks_that_are_bound_apart_keep_what_they_have) {
  const Communicator world = Communicator::world();
  const Placement first = all_place(world);
  const std::vector<std::int64_t> before = used_cores();
  const Placement second = all_place(world);
  BOOST_TEST(second.cores == first.cores);
  BOOST_TEST((used_cores() == before));
}

// With several ranks on few cores each has one as it is.
BOOST_AUTO_TEST_CASE(a_batch_system_s_count_is_the_most_a_rank_takes) {
  setenv("SLURM_CPUS_PER_TASK", "1", 1);
  const Placement placement = all_place(Communicator::world());
  unsetenv("SLURM_CPUS_PER_TASK");
  BOOST_TEST(placement.cores == 1);
}

BOOST_AUTO_TEST_CASE(a_batch_system_s_count_for_a_rank_is_not_the_node_s) {
  setenv("SLURM_CPUS_PER_TASK", "1", 1);
  const int share = share_of_cores(1), node = cores_of_node();
  unsetenv("SLURM_CPUS_PER_TASK");
  BOOST_TEST(share == 1);
  BOOST_TEST(node == share_of_cores(1));
}

BOOST_AUTO_TEST_SUITE_END()

struct Groups : TemporaryFolder {
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder / name).parent_path());
    std::ofstream(folder / name) << text;
  }
  // As /proc/self/cgroup lists them.
  [[nodiscard]] ControlGroups listed(const std::string& groups) const {
    write("groups", groups);
    return {.groups = folder / "groups", .mounted = folder / "mounted"};
  }
};

BOOST_FIXTURE_TEST_SUITE(control_groups, Groups)

BOOST_AUTO_TEST_CASE(cores_of_either_version_and_the_least_on_the_way_up) {
  const auto quota = [&](const std::string& groups) { return quota_of_cores(listed(groups)); };
  write("mounted/slice/job/cpu.max", "max 100000\n");
  write("mounted/slice/cpu.max", "250000 100000\n");
  BOOST_TEST(quota("0::/slice/job\n").value() == 2.5);
  write("mounted/slice/job/cpu.max", "150000 100000\n");
  BOOST_TEST(quota("0::/slice/job\n").value() == 1.5);
  BOOST_TEST(!quota("0::/elsewhere\n").has_value());
  BOOST_TEST(!quota("").has_value());
  write("mounted/cpu,cpuacct/docker/cpu.cfs_quota_us", "400000\n");
  write("mounted/cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
  BOOST_TEST(quota("5:memory:/docker\n4:cpu,cpuacct:/docker\n").value() == 4.0);
  write("mounted/cpu,cpuacct/docker/cpu.cfs_quota_us", "-1\n");
  BOOST_TEST(!quota("4:cpu,cpuacct:/docker\n").has_value());
}

BOOST_AUTO_TEST_CASE(memory_is_the_least_of_the_limits_and_the_machine) {
  const std::int64_t machine = memory_bytes(listed(""));
  BOOST_TEST(machine > 0);
  write("mounted/slice/job/memory.max", "max\n");
  BOOST_TEST(memory_bytes(listed("0::/slice/job\n")) == machine);
  write("mounted/slice/memory.max", "1048576\n");
  BOOST_TEST(memory_bytes(listed("0::/slice/job\n")) == 1048576);
  write("mounted/memory/docker/memory.limit_in_bytes", "2097152\n");
  BOOST_TEST(memory_bytes(listed("5:memory:/docker\n4:cpu,cpuacct:/docker\n")) == 2097152);
  write("mounted/memory/docker/memory.limit_in_bytes", "9223372036854771712\n");  // version 1's "no limit"
  BOOST_TEST(memory_bytes(listed("5:memory:/docker\n")) == machine);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
