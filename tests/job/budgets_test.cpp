// How many experts `auto` gives.
#include "comigs/job/budgets.hpp"

#include <boost/test/unit_test.hpp>

#include "comigs/adapter/flops.hpp"
#include "comigs/adapter/footprint.hpp"
#include "comigs/base/error.hpp"
#include "comigs/job/micro_batches.hpp"
#include "support/messages.hpp"

namespace comigs::job {

namespace {

using test::check_contains;
using test::message_of;

struct Setting {
  model::Architecture architecture = model::gpt2_architecture(4, 64, 4, 500, 64);
  config::Config config;

  Setting() {
    config.run.device = config::DeviceChoice::cpu;
    config.users.resize(2);
    for (config::User& user : config.users) {
      user.experts = config::automatic_experts;
      user.batch_sequences = 4;
      user.context_tokens = 32;
    }
  }

  [[nodiscard]] adapter::UserModel with(std::int64_t experts) const {
    config::User user = config.users[0];
    user.experts = experts;
    return federation::user_models(federation::find_method("comigs-1gxs"), {user}).front();
  }
  [[nodiscard]] double gib_of(std::int64_t experts, std::int64_t sequences, bool on_gpu = false) const {
    const model::Computation float32{.on_gpu = on_gpu};
    return static_cast<double>(
               adapter::footprint(architecture, with(experts), float32, sequences * 32).total()) /
           gib;
  }
  [[nodiscard]] double step_of(std::int64_t experts) const {
    const auto flops = [&](std::int64_t count) {
      return adapter::flops(architecture, with(count), adapter::Pass::experts, 32, 32);
    };
    return flops(experts) / flops(1);
  }
  // The numbers of both users.
  std::vector<std::int64_t> settled(const char* method = "comigs-1gxs") {
    config::Config copy = config;
    settle_experts(federation::find_method(method), copy, architecture);
    return {copy.users[0].experts, copy.users[1].experts};
  }
};

using Experts = std::vector<std::int64_t>;

}  // namespace

BOOST_FIXTURE_TEST_SUITE(budgets, Setting)

BOOST_AUTO_TEST_CASE(a_number_stays) {
  config.users[0].experts = 5;
  config.users[1].experts = 1;
  BOOST_TEST((settled() == Experts{5, 1}));
  BOOST_TEST((settled("fedavg") == Experts{5, 1}));
}

BOOST_AUTO_TEST_CASE(what_may_run_on_a_gpu_has_room_for_what_recordings_keep) {
  constexpr double hair = 1e-9;
  config.users[0].memory = gib_of(5, 4, true) + hair;
  config.users[1].memory = gib_of(6, 4, true) - hair;
  for (const auto device : {config::DeviceChoice::automatic, config::DeviceChoice::cuda}) {
    config.run.device = device;
    BOOST_TEST((settled() == Experts{5, 5}));
  }
}

BOOST_AUTO_TEST_CASE(memory_gives_the_most_that_fit_beside_the_whole_batch) {
  constexpr double hair = 1e-9;
  config.users[0].memory = gib_of(5, 4) + hair;
  config.users[1].memory = gib_of(6, 4) - hair;
  BOOST_TEST((settled() == Experts{5, 5}));
  config.users[0].memory = 1.0;
  BOOST_TEST(settled().front() == most_automatic_experts);
}

BOOST_AUTO_TEST_CASE(where_the_batch_does_not_fit_its_parts_decide) {
  // Room for one expert with half a batch, so that two experts with half a batch are too many.
  config.users[0].memory = 0.5 * (gib_of(1, 2) + gib_of(2, 2));
  config.users[1].memory = 1.0;
  BOOST_TEST(gib_of(1, 4) > config.users[0].memory);
  BOOST_TEST(settled().front() == 1);
}

BOOST_AUTO_TEST_CASE(a_step_budget_bounds_flops) {
  config.users[0].step_budget = step_of(3) * (1 + 1e-12);
  config.users[1].step_budget = 1.0;
  BOOST_TEST((settled() == Experts{3, 1}));
  config.users[0].step_budget = 100.0;
  BOOST_TEST(settled().front() == most_automatic_experts);
}

BOOST_AUTO_TEST_CASE(the_smaller_of_both_budgets_counts) {
  for (config::User& user : config.users) user.memory = 1.0;
  config.users[0].step_budget = step_of(2) * (1 + 1e-12);
  config.users[1].step_budget = step_of(7) * (1 + 1e-12);
  BOOST_TEST((settled() == Experts{2, 7}));
}

BOOST_AUTO_TEST_CASE(generalists_have_room) {
  for (config::User& user : config.users) user.step_budget = 100.0;
  config.users[0].generalists = {0, 1, 2};
  BOOST_TEST((settled("comigs-mgxs") == Experts{16, 16}));
  config.users[0].step_budget = 1.0;
  check_contains(message_of<ConfigError>([&] { (void)settled("comigs-mgxs"); }),
                 {"[user.0] step_budget = 1", "3 generalists"});
}

BOOST_AUTO_TEST_CASE(what_cannot_be_is_said) {
  check_contains(message_of<ConfigError>([&] { (void)settled(); }),
                 {"[user.0] experts = auto", "memory (GiB)", "step_budget"});
  for (config::User& user : config.users) user.memory = 1.0;
  check_contains(message_of<ConfigError>([&] { (void)settled("comigs-1g1s"); }),
                 {"[user.0] experts = auto", "'comigs-1g1s' has 2", "comigs-1gxs"});
  check_contains(message_of<ConfigError>([&] { (void)settled("hetlora"); }), {"'hetlora' has 1"});
  check_contains(message_of<ConfigError>([&] { (void)settled("pretrained"); }), {"'pretrained' has 0"});
  config.users[1].memory = gib_of(1, 1) / 2;
  check_contains(message_of<ConfigError>([&] { (void)settled(); }),
                 {"[user.1] memory", "one sequence of 32 tokens"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
