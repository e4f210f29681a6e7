// The two phases: when each has its turn, which data it sees, and that nothing of one leaks into the other.
#include <boost/test/unit_test.hpp>

#include <cmath>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/lora_experts.hpp"
#include "comigs/adapter/losses.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/tensors.hpp"
#include "trainer_setup.hpp"

namespace comigs::train {

namespace {

using test::same_bits;

// 'e' for an expert step, 'r' for a router step.
std::string sequence_of(const std::vector<Seen>& steps) {
  std::string sequence;
  for (const Seen& step : steps) sequence.push_back(step.phase == Phase::experts ? 'e' : 'r');
  return sequence;
}

// A step's gradients must be what one backward pass through its batch gives parameters that never had a
// gradient: nothing may be left over from the step before, of either phase.
void check_fresh_gradients(const TrainerSetup& setup, const Seen& step, const adapter::Slice& slice) {
  const adapter::Parameters alone = setup.warm();
  at::Tensor values = alone.values();
  values.copy_(step.values);
  const at::Tensor tokens =
      at::tensor(step.batch.tokens, at::kLong).view({step.batch.sequences, step.batch.context});
  const adapter::Forward forward = adapter::forward(*setup.base, tokens, alone);
  const at::Tensor loss =
      model::cross_entropy(forward.hidden, setup.base->head(), at::tensor(step.batch.targets, at::kLong));
  const at::Tensor balance = adapter::load_balancing_loss(
      forward.routing, adapter::balancing_weights(alone.user_model().experts, 0.5));
  (loss + setup.plan.method.load_balancing_weight * balance).backward();
  BOOST_TEST(test::close(part(step.gradients, slice), part(alone.gradients(), slice), 1e-6));
  BOOST_TEST(std::abs(step.language_model - loss.item<double>()) < 1e-6);
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(phases, TrainerSetup)

BOOST_AUTO_TEST_CASE(routers_are_due_every_tau_iterations_of_the_run) {
  adapter::Parameters parameters = fresh();
  BOOST_TEST(sequence_of(train(parameters, 2)) == "eerrreerrreerrreerrr");
  // Not a divisor of the local steps: due after iterations 3, 6, 9 and 12 of three rounds of four.
  plan.method.router_every = 3;
  plan.method.router_steps = 2;
  parameters = fresh();
  BOOST_TEST(sequence_of(train(parameters, 3)) == "eeerreeerreeerreeerr");
  // Longer than a round: after iteration 6, in the middle of the second.
  plan.method.router_every = 6;
  parameters = fresh();
  BOOST_TEST(sequence_of(train(parameters, 3)) == "eeeeeerreeeeeerr");
}

BOOST_AUTO_TEST_CASE(steps_are_announced_as_they_come) {
  plan.method.router_every = 3;
  adapter::Parameters parameters = fresh();
  LocalTrainer trainer(*base, parameters, texts, plan);
  std::int64_t steps = 0;
  trainer.observe([&](Phase, const data::Batch&, const StepLosses&) { ++steps; });
  for (std::int64_t round = 1; round <= 3; ++round) {
    const std::int64_t before = steps;
    (void)trainer.train_round(round);
    BOOST_TEST(steps - before == trainer.steps_in_round(round));
  }
}

BOOST_AUTO_TEST_CASE(experts_see_training_data_and_routers_validation_data) {
  adapter::Parameters parameters = fresh();
  for (const Seen& step : train(parameters, 2)) {
    BOOST_TEST(step.batch.sequences == 4);
    BOOST_TEST(step.batch.context == 6);
    BOOST_TEST(
        (step.phase == Phase::experts ? is_training_batch(step.batch) : is_validation_batch(step.batch)));
  }
  texts.routers = {shards.train};
  parameters = fresh();
  for (const Seen& step : train(parameters, 2)) BOOST_TEST(is_training_batch(step.batch));
}

BOOST_AUTO_TEST_CASE(no_two_steps_see_the_same_batch) {
  texts.routers = {shards.train};
  adapter::Parameters parameters = fresh();
  const std::vector<Seen> steps = train(parameters, 3);
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      BOOST_TEST((steps[i].batch.tokens != steps[j].batch.tokens), "steps " << j << " and " << i);
}

BOOST_AUTO_TEST_CASE(a_phase_leaves_the_other_s_gradients_and_values_alone) {
  adapter::Parameters parameters = warm();
  const adapter::Slice lora = parameters.layout().slice(adapter::select::factors()),
                       routers = parameters.layout().slice(adapter::select::routers());
  // Rubbish in the routers' gradients must neither be used nor cleared by expert steps.
  adapter::view(parameters.gradients(), routers).fill_(7.0);
  const std::vector<Seen> steps = train(parameters, 2);
  std::vector<Seen> all = steps;
  all.push_back({.phase = Phase::experts,
                 .batch = {},
                 .load_balancing = {},
                 .values = parameters.values(),
                 .gradients = parameters.gradients()});
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool experts = steps[i].phase == Phase::experts;
    const adapter::Slice own = experts ? lora : routers, other = experts ? routers : lora;
    const at::Tensor gradients_before =
        i == 0 ? at::full({routers.count}, 7.0f) : part(steps[i - 1].gradients, other);
    BOOST_TEST(same_bits(part(steps[i].gradients, other), gradients_before), "step " << i);
    BOOST_TEST(same_bits(part(all[i + 1].values, other), part(steps[i].values, other)), "step " << i);
    BOOST_TEST(!same_bits(part(all[i + 1].values, own), part(steps[i].values, own)), "step " << i);
    BOOST_TEST(part(steps[i].gradients, own).abs().max().item<float>() > 0.0f);
  }
}

BOOST_AUTO_TEST_CASE(gradients_of_a_step_are_its_own_alone) {
  user_model.experts = 3;
  adapter::Parameters parameters = warm();
  for (const Seen& step : train(parameters, 2))
    check_fresh_gradients(*this, step,
                          step.phase == Phase::experts
                              ? parameters.layout().slice(adapter::select::factors())
                              : parameters.layout().slice(adapter::select::routers()));
  plan.router_training = RouterTraining::joint;
  adapter::Parameters joint = warm();
  for (const Seen& step : train(joint, 2)) {
    check_fresh_gradients(*this, step, joint.layout().slice(adapter::select::factors()));
    check_fresh_gradients(*this, step, joint.layout().slice(adapter::select::routers()));
  }
}

BOOST_AUTO_TEST_CASE(each_phase_counts_its_own_optimiser_steps) {
  // AdamW's first step is the rate times the sign, also for routers whose turn comes after expert steps.
  plan.optimiser.weight_decay = 0.0;
  plan.optimiser.epsilon = 1e-30;
  plan.user.router_learning_rate = 0.01;
  adapter::Parameters parameters = warm();
  const std::vector<Seen> steps = train(parameters, 1);
  const auto check = [&](std::size_t step, const adapter::Slice& slice, double rate) {
    const at::Tensor change = part(steps[step + 1].values, slice) - part(steps[step].values, slice);
    BOOST_TEST(test::close(change, -rate * part(steps[step].gradients, slice).sign(), 1e-4));
  };
  check(0, parameters.layout().slice(adapter::select::factors()), plan.user.expert_learning_rate);
  check(2, parameters.layout().slice(adapter::select::routers()), 0.01);
}

BOOST_AUTO_TEST_CASE(joint_training_moves_both_in_one_step) {
  plan.router_training = RouterTraining::joint;
  texts.routers = {shards.train};
  adapter::Parameters parameters = warm();
  const std::vector<Seen> steps = train(parameters, 1);
  BOOST_TEST(sequence_of(steps) == "eeee");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    BOOST_TEST(part(steps[i].gradients, parameters.layout().slice(adapter::select::factors()))
                   .abs()
                   .max()
                   .item<float>() > 0.0f);
    BOOST_TEST(part(steps[i].gradients, parameters.layout().slice(adapter::select::routers()))
                   .abs()
                   .max()
                   .item<float>() > 0.0f);
    if (i == 0) continue;
    BOOST_TEST(!same_bits(part(steps[i].values, parameters.layout().slice(adapter::select::factors())),
                          part(steps[i - 1].values, parameters.layout().slice(adapter::select::factors()))));
    BOOST_TEST(!same_bits(part(steps[i].values, parameters.layout().slice(adapter::select::routers())),
                          part(steps[i - 1].values, parameters.layout().slice(adapter::select::routers()))));
  }
}

BOOST_AUTO_TEST_CASE(untrained_routers_stay_as_drawn) {
  plan.router_training = RouterTraining::none;
  adapter::Parameters parameters = fresh();
  const at::Tensor drawn = part(parameters.values(), parameters.layout().slice(adapter::select::routers()));
  BOOST_TEST(sequence_of(train(parameters, 2)) == "eeeeeeee");
  BOOST_TEST(
      same_bits(part(parameters.values(), parameters.layout().slice(adapter::select::routers())), drawn));
}

BOOST_AUTO_TEST_CASE(users_without_a_router_have_no_router_phase) {
  user_model.experts = 1;
  adapter::Parameters single = fresh();
  const std::vector<Seen> steps = train(single, 2);
  BOOST_TEST(sequence_of(steps) == "eeeeeeee");
  BOOST_TEST(!steps.front().load_balancing.has_value());
  user_model.experts = 2;
  user_model.gate = adapter::Gate::equal;
  plan.router_training = RouterTraining::joint;
  adapter::Parameters equal = fresh();
  BOOST_TEST(sequence_of(train(equal, 2)) == "eeeeeeee");
}

BOOST_AUTO_TEST_CASE(a_regulariser_adds_to_the_loss_and_has_the_last_word_on_a_step) {
  plan.router_training = RouterTraining::none;
  plan.user.batch_sequences = 3;
  plan.user.micro_batch_sequences = 2;  // shares of the batch, and of the term
  const adapter::Parameters plain = warm();
  adapter::Parameters parameters = warm(), unregularised = warm();
  const std::vector<Seen> without = train(unregularised, 1);
  const at::Tensor A = adapter::lora_layers(parameters)[0].attention[0].A;
  LocalTrainer trainer(*base, parameters, texts, plan);
  int asked = 0, steps = 0;
  trainer.regularise({.term =
                          [&] {
                            ++asked;
                            return Regulariser::Term{.weight = 0.5, .value = A.square().sum()};
                          },
                      .after_step =
                          [&] {
                            ++steps;
                            A.detach().zero_();
                          },
                      .version = 1});
  std::vector<at::Tensor> gradients;
  trainer.observe([&](Phase, const data::Batch&, const StepLosses& losses) {
    if (gradients.empty()) BOOST_TEST(losses.language_model.item<double>() == without[0].language_model);
    gradients.push_back(test::copy_of(parameters.gradients()));
  });
  (void)trainer.train_round(1);
  const adapter::Slice place{.offset = A.storage_offset(), .count = A.numel()};
  BOOST_TEST(test::close(part(gradients[0], place),
                         part(without[0].gradients, place) + part(plain.values(), place), 1e-6));
  BOOST_TEST(asked == 2 * plan.user.local_steps);
  BOOST_TEST(steps == plan.user.local_steps);
  BOOST_TEST(part(parameters.values(), place).abs().max().item<float>() == 0.0f);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
