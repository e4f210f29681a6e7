// Rules by which users weigh models by their own validation data: PCL and FDLoRA. One rank is one user; every
// rank can work out what the others hold.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>

#include "comigs/adapter/forward.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/federation/aggregation.hpp"
#include "comigs/federation/collaboration.hpp"
#include "comigs/federation/fusion.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/random_parameters.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::federation {

namespace {

struct Users {
  comm::Communicator world = comm::Communicator::world();
  int users = world.size();
  std::int64_t own = world.rank();
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(validated_rules, Users)

BOOST_AUTO_TEST_CASE(collaboration_weights_are_a_softmax_of_minus_the_perplexity) {
  const std::vector<double> weights = collaboration_weights({500.0, 501.0, 500.0, 1e6});
  const double sum = 2.0 + std::exp(-1.0);
  BOOST_TEST(weights[0] == 1.0 / sum, boost::test_tools::tolerance(1e-12));
  BOOST_TEST(weights[1] == std::exp(-1.0) / sum, boost::test_tools::tolerance(1e-12));
  BOOST_TEST(weights[2] == weights[0]);
  BOOST_TEST(weights[3] == 0.0);
}

BOOST_AUTO_TEST_CASE(mixing_is_a_product_with_the_collaboration_matrix) {
  at::Tensor values = test::normal({11}, static_cast<std::uint32_t>(own));
  std::vector<double> row;
  at::Tensor expected = at::zeros({11}, at::kDouble);
  for (int user = 0; user < users; ++user) {
    row.push_back(own == user ? 0.6 : 0.4 / (users - 1));
    expected += row.back() * test::normal({11}, static_cast<std::uint32_t>(user));
  }
  all_mix(world, values, row);
  BOOST_TEST(test::close(values, expected, 1e-6));
}

BOOST_AUTO_TEST_CASE(collaboration_is_uniform_until_round_5_and_renewed_every_second_round) {
  const std::vector<adapter::UserModel> models(static_cast<std::size_t>(users),
                                               {.experts = 2, .lora_rank = 2, .gate = adapter::Gate::equal});
  adapter::Parameters parameters(test::tiny_architecture(), models[0], at::kCPU);
  parameters.initialise(1, 0);
  std::vector<std::int64_t> judged;
  // Everyone finds user 0's model (the first that it is shown) the best by a perplexity of exactly 1.
  int shown = 0;
  const auto loss = [&](const at::Tensor&, std::int64_t round) {
    judged.push_back(round);
    return shown++ % users == 0 ? 0.0 : std::log(2.0);
  };
  const std::unique_ptr<Aggregation> rule = all_make_aggregation({.world = world,
                                                                  .method = find_method("pcl"),
                                                                  .users = models,
                                                                  .amounts = {},
                                                                  .parameters = parameters,
                                                                  .validation_loss = loss});
  const double sum = 1.0 + (users - 1) * std::exp(-1.0);
  for (std::int64_t round = 1; round <= 8; ++round) {
    const Aggregated done = rule->all_aggregate(round);
    BOOST_TEST(done.weights[0] == (round < 5 ? 1.0 / users : 1.0 / sum), boost::test_tools::tolerance(1e-12));
    BOOST_TEST(done.weights[1] == (round < 5 ? 1.0 / users : std::exp(-1.0) / sum),
               boost::test_tools::tolerance(1e-12));
    const bool renewed = round == 5 || round == 7;
    BOOST_TEST(done.bytes ==
               (renewed ? 2 : 1) * 4 * parameters.layout().slice(adapter::select::factors()).count);
  }
  std::vector<std::int64_t> expected(static_cast<std::size_t>(users), 5);
  expected.insert(expected.end(), static_cast<std::size_t>(users), 7);
  BOOST_TEST((judged == expected));
}

BOOST_AUTO_TEST_CASE(collaboration_by_renewals_leaves_other_rounds_alone) {
  const std::vector<adapter::UserModel> models(static_cast<std::size_t>(users),
                                               {.experts = 2, .lora_rank = 2, .gate = adapter::Gate::equal});
  adapter::Parameters parameters =
      test::random_parameters(test::tiny_architecture(), models[0], static_cast<std::uint32_t>(own));
  const std::unique_ptr<Aggregation> rule =
      all_make_aggregation({.world = world,
                            .method = find_method("pcl"),
                            .options = {.mixing = config::Mixing::renewals},
                            .users = models,
                            .amounts = {},
                            .parameters = parameters,
                            .validation_loss = [](const at::Tensor&, std::int64_t) { return 1.0; }});
  for (std::int64_t round = 1; round <= 8; ++round) {
    const at::Tensor before = parameters.values().clone();
    const Aggregated done = rule->all_aggregate(round);
    const bool mixes = round == 5 || round == 7;
    BOOST_TEST(done.weights[static_cast<std::size_t>(own)] == (mixes ? 1.0 / users : 1.0));
    BOOST_TEST(test::same_bits(parameters.values(), before) == (!mixes || (users == 1 || round == 7)));
  }
}

// Nearest to 0.3 own + 0.6 averaged, on the lattice that is searched and with the penalty of either.
BOOST_AUTO_TEST_CASE(fusion_is_searched_on_a_lattice) {
  std::int64_t tried = 0;
  const auto loss = [&](FusionWeights weights) {
    ++tried;
    return 10 * (std::pow(weights.own - 0.3, 2) + std::pow(weights.average - 0.6, 2));
  };
  const FusionWeights found = search_fusion(loss).value();
  BOOST_TEST(found.own == 0.25);
  BOOST_TEST(found.average == 0.625);
  BOOST_TEST(tried == fusions_tried);
  BOOST_TEST(search_fusion([](FusionWeights weights) { return -weights.own; }).value().own == 1.0);
  BOOST_TEST(!search_fusion([](FusionWeights) { return std::nan(""); }).has_value());
}

BOOST_AUTO_TEST_CASE(fdlora_is_fedavg_but_for_the_last_round) {
  const std::vector<adapter::UserModel> models(static_cast<std::size_t>(users),
                                               {.experts = 2, .lora_rank = 2, .gate = adapter::Gate::equal});
  const auto drawn = [&] {
    return test::random_parameters(test::tiny_architecture(), models[0], static_cast<std::uint32_t>(own));
  };
  adapter::Parameters parameters = drawn(), means = drawn();
  const at::Tensor before = parameters.values().clone();
  // The best model is half of each.
  at::Tensor average = parameters.values().clone();
  const auto loss = [&](const at::Tensor& values, std::int64_t) {
    return 1e3 * (values - 0.5 * before - 0.5 * average).norm().item<double>();
  };
  const auto made = [&](const char* method, adapter::Parameters& of) {
    return all_make_aggregation({.world = world,
                                 .method = find_method(method),
                                 .users = models,
                                 .amounts = {},
                                 .rounds = 2,
                                 .parameters = of,
                                 .validation_loss = loss});
  };
  const auto fdlora = made("fdlora", parameters), fedavg = made("fedavg", means);
  (void)fedavg->all_aggregate(1);
  average = means.values();
  (void)fdlora->all_aggregate(1);
  BOOST_TEST(test::same_bits(parameters.values(), means.values()));
  parameters.values().copy_(before);
  const Aggregated done = fdlora->all_aggregate(2);
  BOOST_TEST(test::close(parameters.values(), 0.5 * before + 0.5 * average, 1e-6));
  BOOST_TEST(done.weights[static_cast<std::size_t>(own)] == 0.5 + 0.5 / users,
             boost::test_tools::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(others_are_judged_by_the_loss_of_their_values_on_own_validation_data) {
  const TemporaryFolder place;
  const auto base = test::tiny_base();
  const data::TokenShard validation =
      test::write_shard(place.folder / "validation.bin", test::random_tokens(200, 37, 3), 37);
  config::Config config;
  config.run.seed = 9;
  // Three sequences in parts of two and one.
  config.users.assign(static_cast<std::size_t>(users),
                      {.batch_sequences = 3, .micro_batch_sequences = 2, .context_tokens = 6});
  const adapter::UserModel model{.experts = 2, .lora_rank = 2, .gate = adapter::Gate::equal};
  const adapter::Parameters own_model = test::random_parameters(test::tiny_architecture(), model, 1);
  const auto judge = validation_loss(config, *base, own_model, validation, static_cast<std::size_t>(own));
  for (const std::uint32_t number : {2u, 3u}) {
    const adapter::Parameters other = test::random_parameters(test::tiny_architecture(), model, number);
    // 20 batches by hand, from the definition of a stream's key.
    double sum = 0.0;
    for (std::uint32_t b = 0; b < 20; ++b) {
      const data::Batch batch = data::sample_batch(
          {&validation, 1}, 3, 6, {9, static_cast<std::uint32_t>(own), Stream::collaboration_batch, 5, b});
      const at::NoGradGuard none;
      const at::Tensor hidden =
          adapter::forward(*base, at::tensor(batch.tokens, at::kLong).view({3, 6}), other).hidden;
      sum += model::cross_entropy(hidden, base->head(), at::tensor(batch.targets, at::kLong)).item<double>();
    }
    BOOST_TEST(judge(other.values(), 5) == sum / 20, boost::test_tools::tolerance(1e-6));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
