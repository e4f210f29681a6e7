// Whole rounds of several users: what they share is alike afterwards, what is theirs stays theirs, and a
// failure is everyone's.
#include "comigs/run/round_loop.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/base/error.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/train/evaluation.hpp"
#include "run/served.hpp"

namespace comigs::run {

using results::Stage;
using results::UserRound;

namespace {

struct Run : test::Material {
  comm::Interruption interruption{world};
  test::Served served{*this, interruption};
  Seat& seat = served.seat;
  adapter::Parameters& parameters = seat.parameters();

  // Collective.
  UserRound all_start() { return served.all_round(0); }
  UserRound all_round(std::int64_t round) { return served.all_round(round); }

  [[nodiscard]] bool is_last_user() const { return own + 1 == roster.users(); }

  [[nodiscard]] adapter::Slice shared() const {
    return {0, parameters.layout().slice(adapter::select::expert(0)).offset +
                   parameters.layout().slice(adapter::select::expert(0)).count};
  }

  // Collective.
  [[nodiscard]] bool all_same_shared_bits() const {
    const at::Tensor part = adapter::view(parameters.values(), shared());
    const auto blocks =
        world.all_gather_to_first({part.data_ptr<float>(), static_cast<std::size_t>(part.numel())});
    std::int64_t different = 0;
    for (const std::vector<float>& block : blocks)
      if (std::memcmp(block.data(), blocks[0].data(), block.size() * sizeof(float)) != 0) ++different;
    return world.all_sum(different) == 0;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(round_loop, Run)

BOOST_AUTO_TEST_CASE(round_zero_evaluates_and_trains_nothing) {
  const at::Tensor before = test::copy_of(parameters.values());
  const UserRound start = all_start();
  BOOST_TEST(start.round == 0);
  BOOST_TEST(start.after.train.tokens == 39);
  BOOST_TEST(start.after.validation.tokens == 59);
  BOOST_TEST(start.after.test.tokens == 49);
  BOOST_TEST(start.before.test.tokens == 0);
  BOOST_TEST(start.communication_bytes == 0);
  BOOST_TEST(test::same_bits(parameters.values(), before));
  const auto expected =
      train::evaluate(*base, parameters, shards.test, {.context = 6, .sequences = 5}).evaluation;
  BOOST_TEST(start.after.test.loss_sum == expected.loss_sum, boost::test_tools::tolerance(1e-6));
}

BOOST_AUTO_TEST_CASE(generalists_are_alike_after_a_round_and_specialists_are_not_touched_by_it) {
  // The same local training without aggregation says what a user's own part must be.
  Seat lonely(seat_setup());
  lonely.progress() = {.stage = Stage::training, .steps = 0, .record = {.round = 1}};
  BOOST_TEST(lonely.train());
  const adapter::Parameters& alone = lonely.parameters();
  const UserRound record = all_round(1);
  BOOST_TEST(all_same_shared_bits());
  const adapter::Slice rest{shared().count, parameters.values().numel() - shared().count};
  BOOST_TEST(test::same_bits(test::copy_of(adapter::view(parameters.values(), rest)),
                             test::copy_of(adapter::view(alone.values(), rest))));
  BOOST_TEST(!test::same_bits(test::copy_of(adapter::view(parameters.values(), shared())),
                              test::copy_of(adapter::view(alone.values(), shared()))));
  BOOST_TEST(record.communication_bytes == 4 * shared().count);
  BOOST_TEST(record.round == 1);
}

BOOST_AUTO_TEST_CASE(rounds_are_evaluated_as_asked_and_the_last_one_twice) {
  std::vector<UserRound> records;
  for (std::int64_t round = 1; round <= 3; ++round) records.push_back(all_round(round));
  BOOST_TEST(records[0].after.test.tokens == 0);
  BOOST_TEST(records[1].after.test.tokens == 49);
  BOOST_TEST(records[2].after.test.tokens == 49);
  BOOST_TEST(records[1].before.test.tokens == 0);
  BOOST_TEST(records[2].before.test.tokens == 49);
  BOOST_TEST(records[2].before.validation.tokens == 59);
  BOOST_TEST(records[2].before.test.loss_sum != records[2].after.test.loss_sum);
}

BOOST_AUTO_TEST_CASE(routing_and_norms_are_of_the_user_s_own_experts) {
  // The one expert of a user without a router takes every token with gate 1.
  const UserRound start = all_start();
  const auto held = static_cast<std::size_t>(users[own].experts);
  const std::vector<float>&score = start.routing.score, &load = start.routing.load;
  BOOST_TEST(score.size() == 2 * held);
  BOOST_TEST(load.size() == 2 * held);
  BOOST_TEST(start.update_norm.size() == 2 * held * 2);
  BOOST_TEST(start.routing.entropy.size() == 2u);
  const auto sum_of_layer = [&](const std::vector<float>& values, std::size_t layer) {
    double sum = 0.0;
    for (std::size_t e = layer * held; e < (layer + 1) * held && e < values.size(); ++e)
      sum += static_cast<double>(values[e]);
    return sum;
  };
  for (const std::size_t layer : {0u, 1u}) {
    BOOST_TEST(std::abs(sum_of_layer(score, layer) - 1.0) < 1e-5);
    BOOST_TEST(std::abs(sum_of_layer(load, layer) - static_cast<double>(std::min<std::size_t>(held, 2))) <
               1e-5);
  }
  if (held == 1) BOOST_TEST((start.routing.entropy == std::vector<float>{0.0f, 0.0f}));
  // B is zero at the start, so no expert has moved yet.
  BOOST_TEST((start.update_norm == std::vector<float>(4 * held, 0.0f)));
}

BOOST_AUTO_TEST_CASE(a_user_that_fails_takes_everyone_out) {
  const test::Quiet quiet;
  if (is_last_user())
    adapter::lora_layers(parameters)[0].attention[0].B.detach()[0][0] =
        std::numeric_limits<float>::quiet_NaN();
  const at::Tensor before = test::copy_of(parameters.values());
  BOOST_CHECK_EXCEPTION((void)all_round(1), PeerError,
                        [](const PeerError& error) { return error.exit_code() == ExitCode::failed; });
  // What is not finite has reached nobody.
  if (!is_last_user()) BOOST_TEST(parameters.values().isfinite().all().item<bool>());
  BOOST_TEST(world.all_sum(std::int64_t{1}) == world.size());
}

// Leaves the round wherever a signal to one rank finds it, and goes on as after a restart, until it is
// through.
BOOST_AUTO_TEST_CASE(a_round_that_is_interrupted_ends_in_the_same_bits) {
  const at::Tensor before = test::copy_of(parameters.values());
  const UserRound unbroken = all_round(1);
  const at::Tensor expected = test::copy_of(parameters.values());
  for (const auto& [name, block] : seat.trainer().state()) block.zero_();
  parameters.values().copy_(before);
  seat.progress() = {.stage = Stage::training, .steps = 0, .record = {.round = 1}};
  int interruptions = 0;
  for (bool through = false; !through;) {
    comm::Interruption signals(world);
    RoundLoop again(served.loop_setup(*this, signals));
    // Each time one step further, on another rank.
    int steps = 0;
    seat.trainer().observe([&](train::Phase phase, const data::Batch&, const train::StepLosses&) {
      if (phase == train::Phase::experts && ++steps == 1 &&
          own == static_cast<std::size_t>(interruptions) % roster.users())
        std::raise(SIGUSR1);
    });
    try {
      again.all_finish_round();
      through = true;
    } catch (const PeerError& error) {
      BOOST_TEST((error.exit_code() == ExitCode::interrupted));
      ++interruptions;
    }
    world.all_meet();
  }
  seat.trainer().observe({});
  BOOST_TEST(interruptions >= 1);
  BOOST_TEST(test::same_bits(parameters.values(), expected));
  BOOST_TEST(seat.progress().record.communication_bytes == unbroken.communication_bytes);
  BOOST_TEST((seat.progress().record.aggregation_weight == unbroken.aggregation_weight));
}

BOOST_AUTO_TEST_CASE(a_signal_during_evaluation_keeps_what_was_aggregated) {
  if (own == 0) std::raise(SIGTERM);
  BOOST_CHECK_EXCEPTION((void)all_start(), PeerError,
                        [](const PeerError& error) { return error.exit_code() == ExitCode::interrupted; });
  BOOST_TEST((seat.progress().stage == Stage::aggregated));
}

BOOST_AUTO_TEST_CASE(with_a_user_gone_the_others_go_on_among_themselves) {
  config.run.on_user_failure = config::OnUserFailure::go_on;
  config.run.evaluate_every = 1;
  const test::Quiet quiet;
  const std::size_t culprit = roster.users() - 1;
  if (own == culprit)
    adapter::lora_layers(parameters)[0].attention[0].B.detach()[0][0] =
        std::numeric_limits<float>::quiet_NaN();
  const UserRound first = all_round(1);
  BOOST_TEST(first.participation == (own == culprit ? 0 : 1));
  BOOST_TEST((first.after.test.tokens > 0) == (own != culprit));
  // What the users who are left share is the mean of theirs: weights, finite, and alike.
  for (std::size_t user = 0; user < roster.users(); ++user) {
    const double expected = own == culprit    ? (user == own ? 1.0 : 0.0)
                            : user == culprit ? 0.0
                                              : 1.0 / static_cast<double>(culprit);
    BOOST_TEST(first.aggregation_weight[user] == expected, boost::test_tools::tolerance(1e-12));
  }
  if (own != culprit) BOOST_TEST(parameters.values().isfinite().all().item<bool>());
  const UserRound second = all_round(2);
  BOOST_TEST(second.participation == first.participation);
  BOOST_TEST((second.seconds.experts > 0.0) == (own != culprit));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
