// A round that is left in the middle and gone on with ends in the same bits as one that was not.
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <limits>

#include "comigs/adapter/kind.hpp"
#include "comigs/adapter/lora_experts.hpp"
#include "comigs/base/error.hpp"
#include "comigs/train/evaluation.hpp"
#include "support/card.hpp"
#include "trainer_setup.hpp"

namespace comigs::train {

namespace {

struct Resuming : TrainerSetup {
  [[nodiscard]] at::Tensor unbroken(std::int64_t rounds) const {
    adapter::Parameters parameters = fresh();
    (void)train(parameters, rounds);
    return test::copy_of(parameters.values()).to(at::kCPU);
  }

  // Trains `rounds` rounds, but leaves before every step and goes on with a new trainer that is given the old
  // one's state, as after a restart.
  [[nodiscard]] at::Tensor broken(std::int64_t rounds) const {
    std::vector<at::Tensor> kept;
    std::int64_t round = 1, step = 0;
    for (;;) {
      adapter::Parameters parameters = fresh();
      LocalTrainer trainer(*base, parameters, texts, plan);
      const auto state = trainer.state();
      for (std::size_t i = 0; i < kept.size(); ++i) state[i].second.copy_(kept[i]);
      if (round > rounds) return test::copy_of(parameters.values()).to(at::kCPU);
      int asked = 0;
      trainer.stop_when([&] { return asked++ > 0; });
      const LocalRound done = trainer.train_round(round, step);
      BOOST_TEST(done.steps == std::min(step + 1, plan.user.local_steps));
      step = done.steps;
      if (step == plan.user.local_steps) {
        ++round;
        step = 0;
      }
      kept.clear();
      for (const auto& [name, block] : state) kept.push_back(test::copy_of(block));
    }
  }
};

// Three groups with a gate, on examples of three categories.
struct ResumingPrompts : Resuming {
  ResumingPrompts() {
    user_model = {.experts = 3,
                  .generalists = {0},
                  .prompt_tokens = 2,
                  .prompt_layer = 1,
                  .gate_width = 5,
                  .top_k = 3,
                  .gate = adapter::Gate::sequence,
                  .kind = &adapter::kinds::prompts};
    plan.user.micro_batch_sequences = 3;  // parts of two sizes, each once a step
    plan.method.router_steps = 1;
    plan.optimiser.epsilon = 1e-3;  // gradients next to nothing decide nothing
    texts = {.experts = {test::write_examples(folder / "train.bin", 37, 1)},
             .routers = {test::write_examples(folder / "validation.bin", 37, 2)}};
  }
};

}  // namespace

using test::Card;
BOOST_TEST_GLOBAL_FIXTURE(Card);

BOOST_FIXTURE_TEST_SUITE(resuming, Resuming)

BOOST_AUTO_TEST_CASE(from_any_step) { BOOST_TEST(test::same_bits(broken(3), unbroken(3))); }

// On a card a trainer records its steps; with a new one for each step, nothing that a step does once is
// recorded.
BOOST_DATA_TEST_CASE_F(Resuming, on_every_device, test::devices(), there) {
  plan.user.micro_batch_sequences = 3;  // parts of two sizes, each once a step
  plan.method.router_steps = 1;
  plan.optimiser.epsilon = 1e-6;
  const at::Tensor host = unbroken(3);
  move_to(there);
  BOOST_TEST(test::same_bits(broken(3), unbroken(3)));
  if (there.is_cuda()) BOOST_TEST(test::close(unbroken(3), host, 1e-3));
}

// Its warm-up, too; then gate and prompts on one loss, or in turn.
BOOST_DATA_TEST_CASE_F(ResumingPrompts, with_a_mixture_of_prompts_on_every_device,
                       test::devices() * boost::unit_test::data::make({false, true}) *
                           boost::unit_test::data::make({false, true}),
                       there, is_llama, in_turn) {
  architecture = is_llama ? test::tiny_llama_architecture() : test::tiny_architecture();
  plan.router_training = in_turn ? RouterTraining::alternating : RouterTraining::joint;
  plan.gate_warmup_rounds = in_turn ? 0 : 1;
  move_to(at::kCPU);
  const at::Tensor host = unbroken(3);
  BOOST_TEST(!test::same_bits(host, unbroken(2)));
  move_to(there);
  BOOST_TEST(test::same_bits(broken(3), unbroken(3)));
  if (there.is_cuda()) BOOST_TEST(test::close(unbroken(3), host, 1e-3));
}

BOOST_AUTO_TEST_CASE(with_router_updates_that_no_round_divides) {
  plan.method.router_every = 3;
  BOOST_TEST(test::same_bits(broken(3), unbroken(3)));
}

BOOST_AUTO_TEST_CASE(with_gradients_carried_from_phase_to_phase) {
  plan.method.carry_phase_gradients = true;
  BOOST_TEST(test::same_bits(broken(3), unbroken(3)));
}

BOOST_AUTO_TEST_CASE(the_state_names_what_a_checkpoint_needs) {
  adapter::Parameters parameters = fresh();
  const LocalTrainer trainer(*base, parameters, texts, plan);
  std::string names;
  for (const auto& [name, block] : trainer.state()) {
    names += name + " ";
    BOOST_TEST(block.numel() == parameters.values().numel());
  }
  BOOST_TEST(names == "values first_moments second_moments ");
}

BOOST_AUTO_TEST_CASE(what_is_not_finite_is_found_in_its_step) {
  adapter::Parameters parameters = fresh();
  LocalTrainer trainer(*base, parameters, texts, plan);
  std::int64_t steps = 0;
  trainer.observe([&](Phase, const data::Batch&, const StepLosses&) {
    if (++steps == 2)
      adapter::lora_layers(parameters)[0].experts[0].down.B.detach().fill_(
          std::numeric_limits<float>::quiet_NaN());
  });
  BOOST_CHECK_THROW((void)trainer.train_round(1), NumericError);
  BOOST_TEST(steps <= 6);
}

// Between the rounds of a trainer, in whose memory a card records them.
BOOST_DATA_TEST_CASE_F(Resuming, evaluations_that_keep_their_passes, test::devices(), there) {
  move_to(there);
  adapter::Parameters parameters = fresh();
  LocalTrainer trainer(*base, parameters, texts, plan);
  EvaluationPasses passes(trainer.recording_memory());
  const EvaluationOptions plain{.context = 6, .sequences = 4};  // batches of two sizes
  EvaluationOptions kept = plain;
  kept.passes = &passes;
  for (std::int64_t round = 1; round <= 4; ++round) {
    (void)trainer.train_round(round);
    const SplitReport found = evaluate(*base, parameters, shards.validation, kept),
                      expected = evaluate(*base, parameters, shards.validation, plain);
    BOOST_TEST(found.evaluation.loss_sum == expected.evaluation.loss_sum);
    BOOST_TEST(found.evaluation.tokens == expected.evaluation.tokens);
    BOOST_TEST((found.routing.score == expected.routing.score));
    BOOST_TEST((found.routing.entropy == expected.routing.entropy));
  }
}

BOOST_AUTO_TEST_CASE(an_evaluation_that_is_interrupted_leaves) {
  const adapter::Parameters parameters = fresh();
  int asked = 0;
  BOOST_CHECK_THROW((void)evaluate(*base, parameters, shards.train,
                                   {.context = 6, .sequences = 2, .stop = [&] { return ++asked == 3; }}),
                    Interrupted);
  BOOST_TEST(asked == 3);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
