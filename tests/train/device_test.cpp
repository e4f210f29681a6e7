// Steps on a graphics card; only where there is one.
#include <boost/test/unit_test.hpp>

#include "support/card.hpp"
#include "support/tensors.hpp"
#include "trainer_setup.hpp"

namespace comigs::train {

namespace {

struct OnDevice : TrainerSetup {
  at::Device device = at::kCPU;

  // Two rounds of both phases. With a new trainer for each step, nothing that a step does once is ever
  // recorded.
  [[nodiscard]] at::Tensor trained(bool new_trainers) {
    const auto there = model::make_base_model(test::tiny_architecture(), [&](const model::WeightSpec& spec) {
      return weights.at(spec.name).to(device);
    });
    model::Parameters parameters(test::tiny_architecture(), user_model, device);
    parameters.values().copy_(warm().values());
    auto trainer = std::make_unique<LocalTrainer>(*there, parameters, texts, plan);
    for (std::int64_t round = 1; round <= 2; ++round) {
      for (std::int64_t step = 0; step < plan.user.local_steps; ++step) {
        int asked = 0;
        trainer->stop_when([&] { return asked++ > 0; });
        (void)trainer->train_round(round, step);
        if (!new_trainers) continue;
        std::vector<at::Tensor> kept;
        for (const auto& [name, block] : trainer->state()) kept.push_back(test::copy_of(block));
        trainer = std::make_unique<LocalTrainer>(*there, parameters, texts, plan);
        const auto state = trainer->state();
        for (std::size_t i = 0; i < kept.size(); ++i) state[i].second.copy_(kept[i]);
      }
    }
    return test::copy_of(parameters.values()).to(at::kCPU);
  }

  test::Weights weights = test::random_weights(test::tiny_architecture());
};

}  // namespace

using test::Card;
BOOST_TEST_GLOBAL_FIXTURE(Card);

BOOST_FIXTURE_TEST_SUITE(trainer_on_device, OnDevice)

BOOST_AUTO_TEST_CASE(new_trainers_go_on_with_the_same_bits) {
  BOOST_TEST(test::same_bits(trained(false), trained(true)));
}

BOOST_AUTO_TEST_CASE(recorded_steps_are_the_steps_themselves,
                     *boost::unit_test::precondition(test::a_card_is_there)) {
  plan.user.micro_batch_sequences = 3;  // parts of two sizes, each once a step
  plan.method.router_steps = 1;
  plan.optimiser.epsilon = 1e-6;
  const at::Tensor host = trained(false);
  device = test::card;
  BOOST_TEST(test::same_bits(trained(false), trained(true)));
  BOOST_TEST(test::close(trained(false), host, 1e-3));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
