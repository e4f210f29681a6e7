// A job as it would go on this machine.
#include "comigs/job/planned.hpp"

#include <boost/test/unit_test.hpp>

#include "job/job_folders.hpp"

namespace comigs::job {

namespace {

struct Folders : test::JobFolders {
  [[nodiscard]] Job read(std::vector<std::string> more) const {
    more.insert(more.end(),
                {"--method", "comigs-1gxs", "--device", "cpu", "--threads", "1", "--rounds", "3"});
    return read_job(with(more), 2);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(planned, Folders)

BOOST_AUTO_TEST_CASE(a_run_ends_when_its_slowest_user_does) {
  const PlannedTime time{.start = 2.0, .rounds = {0.5, 3.0, 1.0}, .how = {}};
  BOOST_TEST(time.round() == 3.0);
  BOOST_TEST(time.total(4) == 14.0);
}

// One plan in all: a process sets its threads once.
BOOST_AUTO_TEST_CASE(a_job_that_can_run_here) {
  const Job job = read({"--experts", "3,auto", "--step-budget", "1.5", "--local-steps", "8,2"});
  const Plan plan = job::plan(job);
  BOOST_TEST(plan.place.starts_with("cpu"));
  BOOST_TEST(plan.threads == 1);
  BOOST_TEST(plan.problems.empty());
  BOOST_TEST_REQUIRE(plan.costs.size() == 2u);
  BOOST_TEST(plan.memory_of_node > plan.costs[0].memory.base + plan.costs[0].memory.training);
  BOOST_TEST_REQUIRE(plan.time.has_value());
  BOOST_TEST_REQUIRE(plan.time->rounds.size() == 2u);
  BOOST_TEST(plan.time->rounds[0] > plan.time->rounds[1]);  // four times the steps
  BOOST_TEST(plan.time->start > 0.0);
  const config::Config acting = plan.as_it_acts();
  BOOST_TEST(acting.run.threads == 1);
  for (std::size_t user : {0u, 1u}) {
    BOOST_TEST(acting.users[user].experts == job.users[user].experts);
    BOOST_TEST(acting.users[user].top_k == job.users[user].top_k);
    BOOST_TEST(acting.users[user].micro_batch_sequences == plan.costs[user].micro_batch_sequences);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
