// What is suggested where a job does not fit makes it fit.
#include "comigs/job/reckoning.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <iterator>
#include <regex>
#include <sstream>

#include "comigs/adapter/footprint.hpp"
#include "comigs/job/micro_batches.hpp"
#include "job/job_folders.hpp"
#include "support/messages.hpp"

namespace comigs::job {

namespace {

using Options = std::vector<std::string>;

struct Folders : test::JobFolders {
  [[nodiscard]] Job read(const Options& more) const { return read_job(with(more)); }

  static Place cpu(std::int64_t bytes) { return {.memory_bytes = bytes}; }
  static std::int64_t needed(const Job& job) { return memory_of_node(Reckoning(job, cpu(0)).costs(), false); }

  static std::string the_problem(const Job& job, const Place& place) {
    const std::vector<std::string> problems = Reckoning(job, place).problems();
    BOOST_TEST_REQUIRE(problems.size() == 1u);
    return problems.front();
  }

  // The options that a problem's text suggests.
  static Options suggested(const std::string& problem) {
    std::smatch found;
    BOOST_TEST_REQUIRE(std::regex_search(problem, found, std::regex(R"(: ((?:--\S+ \S+ ?)+) makes it )")),
                       problem);
    std::istringstream words(found[1].str());
    return {std::istream_iterator<std::string>(words), {}};
  }

  // The job with them, in the place of what it said before.
  [[nodiscard]] Job changed(const Options& options, const Options& suggestion) const {
    Options words = with(options);
    for (std::size_t i = 0; i + 1 < suggestion.size(); i += 2) {
      const auto said = std::ranges::find(words, suggestion[i]);
      if (said != words.end()) words.erase(said, said + 2);
      words.insert(words.end(), {suggestion[i], suggestion[i + 1]});
    }
    return read_job(words);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(reckonings, Folders)

BOOST_AUTO_TEST_CASE(what_fits_to_the_byte_is_no_problem) {
  const Job job = read({"--method", "comigs-1g1s"});
  BOOST_TEST(Reckoning(job, cpu(needed(job))).problems().empty());
  BOOST_TEST(Reckoning(job, cpu(needed(job))).costs().size() == 2u);
}

BOOST_AUTO_TEST_CASE(smaller_micro_batches_come_first) {
  const Options options = {"--method", "comigs-1g1s", "--batch-sequences", "64"};
  const Job job = read(options);
  const Place place = cpu(needed(job) - 1);
  const std::string problem = the_problem(job, place);
  test::check_contains(problem, {"all 2 users need", "of this machine: --micro-batch-sequences 32 makes it"});
  BOOST_TEST(Reckoning(changed(options, suggested(problem)), place).problems().empty());
}

BOOST_AUTO_TEST_CASE(then_come_precision_and_shorter_texts) {
  const Options options = {"--method", "comigs-1g1s", "--micro-batch-sequences", "1"};
  const Job job = read(options);
  const Place place = cpu(needed(job) - 1);
  const Options suggestion = suggested(the_problem(job, place));
  BOOST_TEST_REQUIRE(!suggestion.empty());
  BOOST_TEST(suggestion.front().find("micro-batch") == std::string::npos);
  BOOST_TEST(Reckoning(changed(options, suggestion), place).problems().empty());
}

BOOST_AUTO_TEST_CASE(where_nothing_helps_that_is_said) {
  test::check_contains(the_problem(read({"--method", "comigs-1g1s"}), cpu(1 << 20)),
                       {"no option alone makes it fit", "smaller base model"});
}

BOOST_AUTO_TEST_CASE(users_may_have_room_on_several_nodes) {
  const Job job = read({"--method", "comigs-1g1s", "--micro-batch-sequences", "1"});
  const std::vector<Cost> costs = Reckoning(job, cpu(0)).costs();
  const std::int64_t one = std::max(memory_of_node({costs[0]}, false), memory_of_node({costs[1]}, false));
  test::check_contains(the_problem(job, cpu(one)), {"all 2 users need", "; 2 such nodes have room for it"});
  const std::string problem = the_problem(job, cpu(one - 1));
  BOOST_TEST(problem.find("such nodes") == std::string::npos, problem);
}

BOOST_AUTO_TEST_CASE(a_budget_is_its_user_s) {
  // Micro-batches get smaller by themselves: what is left to take away is experts.
  const Options options = {"--method",    "comigs-1gxs", "--experts",   "4",
                           "--precision", "bf16",        "--lora-rank", "4"};
  const Job job = read(options);
  adapter::UserModel fewer = job.users[1];
  fewer.experts = 3;
  const model::Computation computation =
      job::computation({.precision = config::Precision::bf16}, at::Device(at::kCPU));
  const double room =
      static_cast<double>(adapter::footprint(job.architecture, fewer, computation, 32).total()) / 0x1p30;
  Options tight = options;
  tight.insert(tight.end(), {"--user.1.memory", fmt::format("{:.12f}", room + 1e-10)});
  const Place place = cpu(std::int64_t{1} << 40);
  const std::string problem = the_problem(read(tight), place);
  test::check_contains(
      problem, {"user Dutch needs", "its memory budget ([user.1] memory)", "--user.1.experts 3 makes it"});
  BOOST_TEST(Reckoning(changed(tight, suggested(problem)), place).problems().empty());
}

BOOST_AUTO_TEST_CASE(a_card_is_each_users_own) {
  const Job job = read({"--method", "comigs-1g1s"});
  Place card{.device = c10::DeviceType::CUDA, .visible = false, .memory_bytes = 0};
  const std::vector<Cost> costs = Reckoning(job, card).costs();
  card.memory_bytes = costs[0].memory.total();
  BOOST_TEST(Reckoning(job, card).problems().empty());
  card.memory_bytes -= 1;
  const std::vector<std::string> problems = Reckoning(job, card).problems();
  BOOST_TEST_REQUIRE(problems.size() == 2u);
  test::check_contains(problems[1], {"user Dutch needs", "of this machine's GPU: --user.1."});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
