// A user's steps: repeatable, independent of how a batch is cut, following the loss they are told, stopped by
// what is not finite.
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/tensors.hpp"
#include "trainer_setup.hpp"

namespace comigs::train {

namespace {

using test::close;
using test::same_bits;

// The slope of the first step's gradients of one part of the block along a direction, by two evaluations of
// its own loss.
double slope(const TrainerSetup& setup, const adapter::Slice& slice, const at::Tensor& direction,
             std::size_t step) {
  double losses[2] = {};
  constexpr double reach = 0.02;
  for (const int side : {0, 1}) {
    adapter::Parameters moved = setup.warm();
    adapter::view(moved.values(), slice).add_(direction * (side == 0 ? reach : -reach));
    const Seen seen = setup.train(moved, 1).at(step);
    losses[side] =
        seen.language_model + setup.plan.method.load_balancing_weight * seen.load_balancing.value_or(0.0);
  }
  return (losses[0] - losses[1]) / (2 * reach);
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(local_trainer, TrainerSetup)

BOOST_AUTO_TEST_CASE(same_plan_gives_the_same_bits) {
  adapter::Parameters first = fresh(), second = fresh();
  (void)train(first, 3);
  (void)train(second, 3);
  BOOST_TEST(same_bits(first.values(), second.values()));
}

BOOST_AUTO_TEST_CASE(seed_and_user_choose_the_batches) {
  adapter::Parameters parameters = warm();
  const std::vector<Seen> steps = train(parameters, 1);
  plan.user_index = 1;
  adapter::Parameters other = warm();
  const std::vector<Seen> other_user = train(other, 1);
  plan.user_index = 0;
  plan.seed = 6;
  other = warm();
  const std::vector<Seen> other_seed = train(other, 1);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    BOOST_TEST((steps[i].batch.tokens != other_user[i].batch.tokens));
    BOOST_TEST((steps[i].batch.tokens != other_seed[i].batch.tokens));
  }
}

BOOST_AUTO_TEST_CASE(training_lowers_the_loss) {
  // Training tokens come from 20 of 37 entries, of which the base knows nothing.
  plan.user.local_steps = 60;
  plan.rounds = 1;
  plan.user.expert_learning_rate = 0.03;
  plan.router_training = RouterTraining::none;
  adapter::Parameters parameters = fresh();
  const std::vector<Seen> steps = train(parameters, 1);
  const auto mean = [&](std::size_t begin) {
    double sum = 0.0;
    for (std::size_t i = begin; i < begin + 10; ++i) sum += steps.at(i).language_model;
    return sum / 10;
  };
  BOOST_TEST(mean(50) < mean(0) - 0.2);
}

BOOST_AUTO_TEST_CASE(micro_batches_give_the_gradients_of_the_whole) {
  plan.method.load_balancing = config::LoadBalancing::none;
  adapter::Parameters parameters = warm();
  const std::vector<Seen> whole = train(parameters, 1);
  for (const std::int64_t size : {1, 2, 3, 4, 100}) {
    plan.user.micro_batch_sequences = size;
    adapter::Parameters again = warm();
    const std::vector<Seen> parts = train(again, 1);
    BOOST_TEST_REQUIRE(parts.size() == whole.size());
    BOOST_TEST(parts[0].language_model == whole[0].language_model, boost::test_tools::tolerance(1e-5));
    BOOST_TEST(close(part(parts[0].gradients, again.layout().slice(adapter::select::factors())),
                     part(whole[0].gradients, again.layout().slice(adapter::select::factors())), 1e-5));
  }
}

// Of its expert steps alone, a token as much as any other, however a batch is cut.
BOOST_AUTO_TEST_CASE(a_round_tells_the_loss_of_what_it_trained_on) {
  for (const std::int64_t size : {0, 3}) {
    plan.user.micro_batch_sequences = size;
    adapter::Parameters parameters = warm();
    LocalTrainer trainer(*base, parameters, texts, plan);
    Evaluation expected;
    trainer.observe([&](Phase phase, const data::Batch& batch, const StepLosses& losses) {
      if (phase != Phase::experts) return;
      expected.loss_sum += losses.language_model.item<double>() * static_cast<double>(batch.predicted);
      expected.tokens += batch.predicted;
    });
    const LocalRound done = trainer.train_round(1);
    BOOST_TEST(done.experts.tokens ==
               plan.user.local_steps * plan.user.batch_sequences * plan.user.context_tokens);
    BOOST_TEST(done.experts.tokens == expected.tokens);
    BOOST_TEST(done.experts.loss() == expected.loss(), boost::test_tools::tolerance(1e-6));
  }
}

BOOST_AUTO_TEST_CASE(gradients_are_slopes_of_the_phases_losses) {
  user_model.experts = 3;
  user_model.top_k = 3;  // no choice that a small move could change
  plan.method.load_balancing_weight = 0.5;
  plan.method.router_every = 1;
  plan.user.expert_learning_rate = 0.0;
  plan.optimiser.weight_decay = 0.0;
  adapter::Parameters parameters = warm();
  const std::vector<Seen> steps = train(parameters, 1);
  for (const auto& [slice, step] :
       {std::pair{parameters.layout().slice(adapter::select::factors()), std::size_t{0}},
        std::pair{parameters.layout().slice(adapter::select::routers()), std::size_t{1}}}) {
    const at::Tensor gradients = part(steps[step].gradients, slice);
    const at::Tensor direction = gradients / gradients.norm();
    BOOST_TEST(slope(*this, slice, direction, step) == gradients.norm().item<double>(),
               boost::test_tools::tolerance(1e-2));
  }
}

BOOST_AUTO_TEST_CASE(the_text_alone_moves_a_router_that_chooses_one) {
  user_model.top_k = 1;
  plan.method.load_balancing = config::LoadBalancing::none;
  plan.method.router_every = 1;
  plan.optimiser.weight_decay = 0.0;
  adapter::Parameters parameters = warm();
  const at::Tensor before = part(parameters.values(), parameters.layout().slice(adapter::select::routers()));
  (void)train(parameters, 1);
  BOOST_TEST(!test::same_bits(
      part(parameters.values(), parameters.layout().slice(adapter::select::routers())), before));
}

BOOST_AUTO_TEST_CASE(load_balancing_of_two_of_two_is_half_and_moves_nothing) {
  adapter::Parameters parameters = warm();
  const std::vector<Seen> balanced = train(parameters, 1);
  for (const Seen& step : balanced) {
    BOOST_TEST_REQUIRE(step.load_balancing.has_value());
    BOOST_TEST(*step.load_balancing == 0.5, boost::test_tools::tolerance(1e-5));
  }
  plan.method.load_balancing = config::LoadBalancing::none;
  adapter::Parameters other = warm();
  const std::vector<Seen> unbalanced = train(other, 1);
  BOOST_TEST(!unbalanced.front().load_balancing.has_value());
  BOOST_TEST(close(balanced[0].gradients, unbalanced[0].gradients, 1e-5));
  BOOST_TEST(close(part(balanced[2].gradients, other.layout().slice(adapter::select::routers())),
                   part(unbalanced[2].gradients, other.layout().slice(adapter::select::routers())), 1e-2));
}

BOOST_AUTO_TEST_CASE(kinds_of_load_balancing_differ_from_three_experts_on) {
  user_model.experts = 3;
  const auto first_loss = [&](config::LoadBalancing kind) {
    plan.method.load_balancing = kind;
    adapter::Parameters parameters = warm();
    return train(parameters, 1).front().load_balancing;
  };
  const auto uniform = first_loss(config::LoadBalancing::uniform),
             generalist = first_loss(config::LoadBalancing::generalist);
  BOOST_TEST_REQUIRE((uniform.has_value() && generalist.has_value()));
  BOOST_TEST(std::abs(*uniform - *generalist) > 1e-4);
  BOOST_TEST(!first_loss(config::LoadBalancing::none).has_value());
}

BOOST_AUTO_TEST_CASE(what_is_not_finite_stops_the_run) {
  for (const float rubbish :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    adapter::Parameters parameters = warm();
    adapter::lora_layers(parameters)[1].experts[0].up[0].B.detach()[3][1] = rubbish;
    const std::string message = test::message_of<NumericError>([&] { (void)train(parameters, 1); });
    test::check_contains(message, {"round 1", "not finite", "learning_rate"});
  }
  // Also where it hits routers alone, after the last step of the round.
  plan.user.router_learning_rate = std::numeric_limits<double>::infinity();
  plan.method.router_every = 4;
  plan.method.router_steps = 1;
  adapter::Parameters parameters = warm();
  (void)test::message_of<NumericError>([&] { (void)train(parameters, 1); });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
