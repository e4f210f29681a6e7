// `centralized` and `mop-centralized`: N ranks with batches of B train the model that one process trains with
// batches of N B.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include "comigs/federation/aggregation.hpp"
#include "comigs/job/local_work.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::run {

namespace {

constexpr std::int64_t B = 3, rounds = 3;

config::Config small_config(int users, std::int64_t batch) {
  config::Config config;
  config.run.rounds = rounds;
  config.run.seed = 4;
  config.method.gate_warmup_rounds = 1;
  config.optimiser.epsilon = 1e-6;  // the default lets AdamW take whole steps by the rounding of a gradient
  for (int user = 0; user < users; ++user)
    config.users.push_back({.experts = 2,
                            .lora_rank = 2,
                            .prompt_tokens = 2,
                            .prompt_layer = 1,
                            .gate_width = 4,
                            .batch_sequences = batch,
                            .context_tokens = 6,
                            .local_steps = 2,
                            .expert_learning_rate = 0.02});
  return config;
}

struct Union : TemporaryFolder {
  comm::Communicator world = comm::Communicator::world();
  std::unique_ptr<model::BaseModel> base = test::tiny_base();

  // Shards of different lengths; every rank has files of its own with the same content.
  [[nodiscard]] std::vector<data::TokenShard> all_texts() const {
    std::vector<data::TokenShard> texts;
    for (int user = 0; user < world.size(); ++user)
      texts.push_back(test::write_shard(folder / (std::to_string(user) + ".bin"),
                                        test::random_tokens(60 + 30 * user, 37, 7 + user), 37));
    return texts;
  }

  // The same with responses of 1 to 4 tokens: parts of a batch have unlike numbers of predicted tokens.
  [[nodiscard]] std::vector<data::TokenShard> all_examples() const {
    std::vector<data::TokenShard> texts;
    for (int user = 0; user < world.size(); ++user) {
      std::vector<std::pair<std::int64_t, std::int64_t>> lengths;
      for (int i = 0; i < 12 + 5 * user; ++i) lengths.emplace_back(1 + i % 3, 1 + (i + user) % 4);
      const std::vector<data::Example> examples = test::examples_of(lengths);
      const std::int64_t tokens = examples.back().begin + examples.back().tokens();
      texts.emplace_back(test::describe_examples(folder / (std::to_string(user) + ".bin"),
                                                 test::random_tokens(tokens, 37, 7 + user), examples),
                         37);
    }
    return texts;
  }

  void check_together(const std::vector<data::TokenShard>& shards, std::int64_t at_a_time, double tolerance,
                      const char* name = "centralized") const;

  [[nodiscard]] adapter::Parameters drawn(const std::vector<adapter::UserModel>& users) const {
    adapter::Parameters parameters(test::tiny_architecture(), users[0], at::kCPU);
    parameters.initialise(4, world.rank());
    return parameters;
  }
};

// The gradients of a trainer's first step, as its optimiser is given them.
void first_gradients(train::LocalTrainer& trainer, const adapter::Parameters& parameters, at::Tensor& to) {
  trainer.observe([&](train::Phase, const data::Batch&, const train::StepLosses&) {
    if (!to.defined()) to = parameters.gradients().clone();
  });
}

void Union::check_together(const std::vector<data::TokenShard>& shards, std::int64_t at_a_time,
                           double tolerance, const char* name) const {
  const federation::Method& method = federation::find_method(name);
  config::Config config = small_config(world.size(), B);
  for (config::User& user : config.users) user.micro_batch_sequences = at_a_time;
  const auto users = federation::user_models(method, config.users);
  const train::Texts texts{.experts = shards, .routers = shards};
  adapter::Parameters parameters = drawn(users);
  train::LocalTrainer trainer(*base, parameters, texts,
                              job::local_plan(method, config, static_cast<std::size_t>(world.rank())));
  const auto rule = federation::all_make_aggregation({.world = world,
                                                      .method = method,
                                                      .users = users,
                                                      .amounts = {},
                                                      .parameters = parameters,
                                                      .validation_loss = {}});
  trainer.exchange_gradients(rule->exchange());
  BOOST_TEST(trainer.exchanges());
  BOOST_TEST(!rule->changes_parameters());

  config::Config alone = small_config(1, B * world.size());
  adapter::Parameters whole = drawn(users);
  const at::Tensor start = test::copy_of(whole.values());
  train::LocalTrainer single(*base, whole, texts, job::local_plan(method, alone, 0));

  at::Tensor found, expected;
  first_gradients(trainer, parameters, found);
  first_gradients(single, whole, expected);
  for (std::int64_t round = 1; round <= rounds; ++round) {
    (void)trainer.train_round(round);
    (void)single.train_round(round);
    const federation::Aggregated done = rule->all_aggregate(round);
    const adapter::Layout& layout = parameters.layout();
    const bool warmup = method.routers_shared && round <= config.method.gate_warmup_rounds;
    BOOST_TEST(done.bytes == 2 * 4 *
                                 ((warmup ? 0 : layout.slice(adapter::select::factors()).count) +
                                  layout.slice(adapter::select::routers()).count));
    BOOST_TEST(done.weights[0] == 1.0 / world.size());
    BOOST_TEST(test::close(parameters.values(), whole.values(), tolerance));
  }
  BOOST_TEST(test::close(found, expected, 1e-6));
  BOOST_TEST(!test::close(start, whole.values(), 1e-2));
  const at::Tensor mine = parameters.values();
  const auto all =
      world.all_gather_to_first({mine.data_ptr<float>(), static_cast<std::size_t>(mine.numel())});
  for (const auto& other : all) BOOST_TEST((other == all.front()));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(one_model, Union)

BOOST_AUTO_TEST_CASE(ranks_together_are_one_process_with_the_sum_of_their_batches) {
  check_together(all_texts(), 0, 1e-5);
}

BOOST_AUTO_TEST_CASE(so_they_are_where_their_examples_have_responses_of_unlike_length) {
  // Few tokens are predicted: AdamW makes more of a gradient's rounding.
  check_together(all_examples(), 0, 1e-4);
  check_together(all_examples(), 2, 1e-4);
}

// mop.md check 12; the warm-up of the gate among its rounds.
BOOST_AUTO_TEST_CASE(so_they_are_where_prompts_and_their_gate_are_trained) {
  check_together(all_examples(), 0, 1e-4, "mop-centralized");
  check_together(all_examples(), 2, 1e-4, "mop-centralized");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
