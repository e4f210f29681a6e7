// What each rule is reckoned to send, against what a rank hands to MPI. One rank is one user.
#include <ATen/ATen.h>
#include <mpi.h>

#include <boost/test/unit_test.hpp>

#include "comigs/federation/aggregation.hpp"
#include "comigs/federation/traffic.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace {
std::int64_t bytes_sent = 0;

std::int64_t bytes_of(int count, MPI_Datatype type) {
  int size = 0;
  PMPI_Type_size(type, &size);
  return std::int64_t{count} * size;
}
}  // namespace

// In the place of MPI's own: blocks of parameters are counted, as they leave for a sum or a broadcast.
extern "C" {
int MPI_Iallreduce(const void* sent, void* received, int count, MPI_Datatype type, MPI_Op operation,
                   MPI_Comm communicator, MPI_Request* request) {
  if (type == MPI_FLOAT) bytes_sent += bytes_of(count, type);
  return PMPI_Iallreduce(sent, received, count, type, operation, communicator, request);
}
int MPI_Ialltoall(const void* sent, int count, MPI_Datatype type, void* received, int received_count,
                  MPI_Datatype received_type, MPI_Comm communicator, MPI_Request* request) {
  int ranks = 0;
  PMPI_Comm_size(communicator, &ranks);
  bytes_sent += bytes_of(count, type) * ranks;
  return PMPI_Ialltoall(sent, count, type, received, received_count, received_type, communicator, request);
}
int MPI_Ibcast(void* block, int count, MPI_Datatype type, int source, MPI_Comm communicator,
               MPI_Request* request) {
  int rank = 0;
  PMPI_Comm_rank(communicator, &rank);
  if (type == MPI_FLOAT && rank == source) bytes_sent += bytes_of(count, type);
  return PMPI_Ibcast(block, count, type, source, communicator, request);
}
}

namespace comigs::federation {

namespace {

struct Costs {
  comm::Communicator world = comm::Communicator::world();
  config::Config config;

  Costs() {
    const std::int64_t experts[] = {3, 2, 2, 1};
    for (int user = 0; user < world.size(); ++user)
      config.users.push_back({.experts = experts[user], .lora_rank = 2, .local_steps = 3});
    config.run.rounds = 7;
    config.run.reproducible = false;
  }

  // Collective. Seven rounds of the rule without training; `filled_up`: numbers of a sum's parts that are of
  // nobody, at most.
  void all_check(const char* name, std::int64_t filled_up = 0) const {
    const Method& method = find_method(name);
    const std::vector<adapter::UserModel> users = user_models(method, config.users);
    const auto own = static_cast<std::size_t>(world.rank());
    adapter::Parameters parameters = test::random_parameters(test::tiny_architecture(), users[own], 3);
    const RuleCost cost = method.rule.cost({config, users, own, parameters.layout()});
    const auto rule =
        all_make_aggregation({.world = world,
                              .method = method,
                              .options = config.method,
                              .users = users,
                              .amounts = std::vector<std::int64_t>(users.size(), 100),
                              .rounds = config.run.rounds,
                              .parameters = parameters,
                              .sums = sums(config.run),
                              .validation_loss = [](const at::Tensor&, std::int64_t) { return 1.0; }});
    for (std::int64_t round = 1; round <= config.run.rounds; ++round) {
      bytes_sent = 0;
      for (std::int64_t step = 0; method.rule.every_step && step < config.users[own].local_steps; ++step)
        rule->exchange()(
            adapter::view(parameters.gradients(), parameters.layout().slice(adapter::select::factors())));
      const Aggregated done = rule->all_aggregate(round);
      BOOST_TEST(done.bytes == cost.bytes_in(round), name << ", round " << round);
      BOOST_TEST(bytes_sent >= done.bytes, name << ", round " << round << ": " << bytes_sent);
      BOOST_TEST(bytes_sent <= done.bytes + filled_up, name << ", round " << round << ": " << bytes_sent);
    }
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(rule_costs, Costs)

BOOST_AUTO_TEST_CASE(means_send_what_is_shared) {
  for (const char* method : {"local", "fedavg", "ffa-lora", "comigs-2s", "comigs-1gxs"}) all_check(method);
  for (config::User& user : config.users) user.generalists = {0, 1};
  for (config::User& user : config.users) user.experts = 2;
  config.users.back().generalists = {1};
  all_check("comigs-mgxs");
}

BOOST_AUTO_TEST_CASE(sums_in_users_order_and_in_bf16_send_the_same_numbers) {
  config.run.reproducible = true;
  // Three slices at most, each divided among the ranks.
  all_check("fedavg", 3 * world.size() * 4);
  config.run.communication = config::Precision::bf16;
  all_check("fedavg", 3 * world.size() * 2);
}

BOOST_AUTO_TEST_CASE(one_model_sends_its_gradients_at_every_step) {
  for (config::User& user : config.users) user.experts = 2;
  all_check("centralized");
}

BOOST_AUTO_TEST_CASE(judges_send_everything_twice) {
  for (config::User& user : config.users) user.experts = 2;
  all_check("pcl");
  config.method.mixing = config::Mixing::renewals;
  all_check("pcl");
  all_check("fdlora");
}

BOOST_AUTO_TEST_CASE(users_of_different_ranks_send_more_or_less) {
  const std::int64_t ranks[] = {4, 2, 3, 1};
  for (std::size_t user = 0; user < config.users.size(); ++user)
    config.users[user] = {.experts = 1, .lora_rank = ranks[user]};
  for (const std::int64_t attention : {0, 3}) {
    for (config::User& user : config.users) user.attention_rank = attention;
    all_check("hetlora");
    all_check("flexlora");
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
