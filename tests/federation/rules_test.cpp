// The aggregation rules against closed forms on small matrices. One rank is one user; every rank can work out
// what the others hold.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>

#include "comigs/federation/aggregation.hpp"
#include "comigs/federation/rank_rules.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::federation {

namespace {

constexpr std::int64_t in = 7, out = 5;

// Two LoRA of a user, with ranks 4, 2, 3, 1 for users 0 to 3.
struct Rules {
  comm::Communicator world = comm::Communicator::world();
  int users = world.size();
  std::int64_t own = world.rank();

  static std::int64_t rank_of(std::int64_t user) {
    return std::vector<std::int64_t>{4, 2, 3, 1}[static_cast<std::size_t>(user)];
  }
  static double gamma_of(std::int64_t user) { return 16.0 / std::sqrt(static_cast<double>(rank_of(user))); }
  static std::vector<adapter::Lora> loras_of(std::int64_t user) {
    const auto number = static_cast<std::uint32_t>(10 * user);
    return {
        {.A = test::normal({rank_of(user), in}, number), .B = test::normal({out, rank_of(user)}, number + 1)},
        {.A = test::normal({rank_of(user), in}, number + 2),
         .B = test::normal({out, rank_of(user)}, number + 3)}};
  }
  // B A in float64.
  static at::Tensor product(const adapter::Lora& lora) {
    return lora.B.detach().to(at::kDouble).mm(lora.A.detach().to(at::kDouble));
  }
};

// Users of a whole model, with the ranks of LoRA above.
struct WholeModels : Rules {
  std::vector<adapter::UserModel> models;

  WholeModels() {
    for (int user = 0; user < users; ++user)
      models.push_back({.experts = 1, .lora_rank = rank_of(user), .gate = adapter::Gate::equal});
  }

  [[nodiscard]] adapter::Parameters parameters_of(std::int64_t user) const {
    return test::random_parameters(test::tiny_architecture(), models[static_cast<std::size_t>(user)],
                                   40 + static_cast<std::uint32_t>(user));
  }

  // Collective.
  [[nodiscard]] std::unique_ptr<Aggregation> all_make(const char* method, adapter::Parameters& parameters,
                                                      std::vector<std::int64_t> tokens = {}) const {
    return all_make_aggregation({.world = world,
                                 .method = find_method(method),
                                 .users = models,
                                 .amounts = std::move(tokens),
                                 .parameters = parameters,
                                 .validation_loss = {}});
  }
};

at::Tensor padded_rows(const at::Tensor& rows, std::int64_t largest) {
  at::Tensor padded = at::zeros({largest, rows.size(1)}, at::kDouble);
  padded.narrow(0, 0, rows.size(0)).copy_(rows);
  return padded;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(rules, Rules)

BOOST_AUTO_TEST_CASE(hetlora_pads_weighs_by_norm_and_truncates) {
  std::vector<adapter::Lora> loras = loras_of(own);
  comm::Reduction reduction(comm::Memory::host, comm::Sums::any_order);
  at::Tensor padded = at::empty({2 * 4 * (in + out)});
  const std::vector<double> weights = all_pad_and_average(world, reduction, loras, 4, rank_of(own), padded);
  for (std::size_t l = 0; l < 2; ++l) {
    std::vector<double> norms;
    double sum = 0.0;
    for (int user = 0; user < users; ++user)
      sum += norms.emplace_back(product(loras_of(user)[l]).norm().item<double>());
    at::Tensor A = at::zeros({4, in}, at::kDouble), Bt = at::zeros({4, out}, at::kDouble);
    for (int user = 0; user < users; ++user) {
      const double weight = norms[static_cast<std::size_t>(user)] / sum;
      BOOST_TEST(weights[l * static_cast<std::size_t>(users) + static_cast<std::size_t>(user)] == weight,
                 boost::test_tools::tolerance(1e-6));
      A += weight * padded_rows(loras_of(user)[l].A, 4);
      Bt += weight * padded_rows(loras_of(user)[l].B.t(), 4);
    }
    BOOST_TEST(test::close(loras[l].A, A.narrow(0, 0, rank_of(own)), 1e-6));
    BOOST_TEST(test::close(loras[l].B, Bt.narrow(0, 0, rank_of(own)).t(), 1e-6));
  }
}

BOOST_AUTO_TEST_CASE(hetlora_weighs_alike_what_is_zero_everywhere) {
  std::vector<adapter::Lora> loras = loras_of(own);
  for (adapter::Lora& lora : loras) lora.B.zero_();
  comm::Reduction reduction(comm::Memory::host, comm::Sums::any_order);
  at::Tensor padded = at::empty({2 * 4 * (in + out)});
  for (const double weight : all_pad_and_average(world, reduction, loras, 4, rank_of(own), padded))
    BOOST_TEST(weight == 1.0 / users);
}

BOOST_AUTO_TEST_CASE(hetlora_hands_back_no_more_ranks_than_are_in_use) {
  std::vector<adapter::Lora> loras = loras_of(own);
  const std::int64_t keep = std::max<std::int64_t>(1, rank_of(own) - 1);
  comm::Reduction reduction(comm::Memory::host, comm::Sums::any_order);
  at::Tensor padded = at::empty({2 * 4 * (in + out)});
  (void)all_pad_and_average(world, reduction, loras, 4, keep, padded);
  for (const adapter::Lora& lora : loras) {
    const std::int64_t unused = rank_of(own) - keep;
    BOOST_TEST(lora.A.narrow(0, keep, unused).abs().sum().item<float>() == 0.0f);
    BOOST_TEST(lora.B.narrow(1, keep, unused).abs().sum().item<float>() == 0.0f);
    BOOST_TEST(lora.A.narrow(0, 0, keep).abs().min().item<float>() > 0.0f);
  }
}

BOOST_AUTO_TEST_CASE(flexlora_gives_the_best_approximation_of_each_rank) {
  std::vector<adapter::Lora> loras = loras_of(own);
  std::vector<double> weights;
  for (int user = 0; user < users; ++user) weights.push_back(0.5 / users + (user == 0 ? 0.5 : 0.0));
  (void)all_decompose(world, loras, gamma_of(own), weights);
  for (std::size_t l = 0; l < 2; ++l) {
    at::Tensor average = at::zeros({out, in}, at::kDouble);
    for (int user = 0; user < users; ++user)
      average += weights[static_cast<std::size_t>(user)] * gamma_of(user) * product(loras_of(user)[l]);
    const auto [U, S, Vh] = at::linalg_svd(average, false);
    const std::int64_t rank = rank_of(own);
    // Eckart and Young: nothing of rank R is nearer than the first R components.
    const at::Tensor best = U.narrow(1, 0, rank).mm(S.narrow(0, 0, rank).diag()).mm(Vh.narrow(0, 0, rank));
    BOOST_TEST(test::close(gamma_of(own) * product(loras[l]), best, 1e-5));
    // The singular values are split evenly between the factors.
    BOOST_TEST(test::close(loras[l].A.norm(2, {1}), loras[l].B.norm(2, {0}), 1e-5));
  }
}

BOOST_FIXTURE_TEST_CASE(flexlora_weighs_users_by_their_training_tokens, WholeModels) {
  adapter::Parameters parameters = parameters_of(own);
  std::vector<std::int64_t> tokens;
  double sum = 0.0;
  for (int user = 0; user < users; ++user)
    sum += static_cast<double>(tokens.emplace_back(user == 0 ? 700 : 100));
  const Aggregated done = all_make("flexlora", parameters, tokens)->all_aggregate(1);
  for (int user = 0; user < users; ++user)
    BOOST_TEST(done.weights[static_cast<std::size_t>(user)] == (user == 0 ? 700 : 100) / sum,
               boost::test_tools::tolerance(1e-12));
  for (std::size_t l = 0; l < parameters.loras().size(); ++l) {
    at::Tensor average =
        at::zeros({parameters.loras()[l].B.size(0), parameters.loras()[l].A.size(1)}, at::kDouble);
    for (int user = 0; user < users; ++user)
      average += (user == 0 ? 700 : 100) / sum * gamma_of(user) * product(parameters_of(user).loras()[l]);
    const auto [U, S, Vh] = at::linalg_svd(average, false);
    const std::int64_t rank = rank_of(own);
    const at::Tensor best = U.narrow(1, 0, rank).mm(S.narrow(0, 0, rank).diag()).mm(Vh.narrow(0, 0, rank));
    BOOST_TEST(test::close(gamma_of(own) * product(parameters.loras()[l]), best, 1e-5));
  }
}

BOOST_FIXTURE_TEST_CASE(hetlora_reports_the_mean_share_over_all_loras, WholeModels) {
  adapter::Parameters parameters = parameters_of(own);
  const std::size_t loras = parameters.loras().size();
  std::vector<double> expected(static_cast<std::size_t>(users), 0.0);
  for (std::size_t l = 0; l < loras; ++l) {
    std::vector<double> norms;
    double sum = 0.0;
    for (int user = 0; user < users; ++user)
      sum += norms.emplace_back(product(parameters_of(user).loras()[l]).norm().item<double>());
    for (std::size_t user = 0; user < norms.size(); ++user)
      expected[user] += norms[user] / sum / static_cast<double>(loras);
  }
  const Aggregated done = all_make("hetlora", parameters)->all_aggregate(1);
  BOOST_TEST(done.weights == expected, boost::test_tools::tolerance(1e-6)
                                           << boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(flexlora_users_of_equal_rank_end_with_equal_bits) {
  std::vector<adapter::Lora> loras = loras_of(own);
  for (adapter::Lora& lora : loras) {
    lora.A = lora.A.narrow(0, 0, 1).clone();
    lora.B = lora.B.narrow(1, 0, 1).clone();
  }
  (void)all_decompose(world, loras, 2.0, std::vector<double>(static_cast<std::size_t>(users), 1.0 / users));
  const at::Tensor mine = at::cat({loras[0].A.reshape({-1}), loras[1].B.reshape({-1})});
  const auto all =
      world.all_gather_to_first({mine.data_ptr<float>(), static_cast<std::size_t>(mine.numel())});
  for (const auto& other : all) BOOST_TEST((other == all.front()));
}

BOOST_FIXTURE_TEST_CASE(hetlora_prunes_where_the_tail_has_shrunk, WholeModels) {
  adapter::Parameters parameters =
      test::random_parameters(test::tiny_architecture(), models[static_cast<std::size_t>(own)], 40);
  const std::unique_ptr<Aggregation> rule = all_make("hetlora", parameters);
  const auto scale_last_rank = [&](double factor) {
    for (const adapter::Lora& lora : parameters.loras())
      lora.A.detach().narrow(0, *rule->ranks_left() - 1, 1).mul_(factor);
  };
  scale_last_rank(2.0);
  (void)rule->all_aggregate(1);
  BOOST_TEST(*rule->ranks_left() == rank_of(own));  // the tail has grown
  scale_last_rank(0.5);
  (void)rule->all_aggregate(2);
  BOOST_TEST(*rule->ranks_left() == std::max<std::int64_t>(1, rank_of(own) - 1));
}

// The LoRA beside attention, of one rank for all, are the plain mean and are not pruned.
BOOST_FIXTURE_TEST_CASE(attention_of_a_rank_of_its_own_is_averaged_alike, WholeModels) {
  for (adapter::UserModel& model : models) model.attention_rank = 3;
  for (const char* method : {"hetlora", "flexlora"}) {
    adapter::Parameters parameters = parameters_of(own);
    at::Tensor expected;
    for (int user = 0; user < users; ++user) {
      const adapter::Parameters theirs = parameters_of(user);
      const at::Tensor attention =
          adapter::view(theirs.values(), theirs.layout().slice(adapter::select::attention()));
      expected = expected.defined() ? expected + attention / users : attention / users;
    }
    const auto rule =
        all_make(method, parameters, std::vector<std::int64_t>(static_cast<std::size_t>(users), 100));
    rule->leave_ranks(1);
    (void)rule->all_aggregate(1);
    BOOST_TEST(test::close(
        adapter::view(parameters.values(), parameters.layout().slice(adapter::select::attention())), expected,
        1e-6));
  }
}

BOOST_FIXTURE_TEST_CASE(a_penalty_of_the_tail_beside_a_rule_that_prunes_nothing, WholeModels) {
  adapter::Parameters parameters = parameters_of(own);
  const auto penalty = [&](std::optional<double> weight) {
    return tail_penalty({.world = world,
                         .method = find_method("flexlora"),
                         .options = {.rank_regulariser = weight, .pruning_strength = 0.5},
                         .users = models,
                         .amounts = {},
                         .parameters = parameters,
                         .validation_loss = {}});
  };
  BOOST_TEST(!penalty({}).term);
  BOOST_TEST(!penalty(0.0).term);
  const std::int64_t kept = std::max<std::int64_t>(1, rank_of(own) / 2), tail = rank_of(own) - kept;
  BOOST_TEST(static_cast<bool>(penalty(0.25).term) == (tail > 0));
  if (tail == 0) return;
  const train::Regulariser::Term term = penalty(0.25).term();
  BOOST_TEST(term.weight == 0.25);
  BOOST_TEST(term.value.item<double>() == tail_norm(parameters.loras(), kept, rank_of(own)).item<double>(),
             boost::test_tools::tolerance(1e-12));
}

BOOST_FIXTURE_TEST_CASE(hetlora_s_pruned_ranks_are_zero_in_both_factors_after_every_step, WholeModels) {
  adapter::Parameters parameters = parameters_of(own);
  const std::unique_ptr<Aggregation> rule = all_make("hetlora", parameters);
  const std::int64_t version = rule->regulariser().version;
  rule->leave_ranks(1);
  BOOST_TEST((rule->regulariser().version == version) == (rank_of(own) == 1));
  const adapter::Parameters before = parameters_of(own);
  for (const bool moved : {false, true}) {
    if (moved) parameters.values().copy_(before.values());
    if (moved) rule->regulariser().after_step();
    const std::vector<adapter::Lora> now = parameters.loras(), then = before.loras();
    for (std::size_t l = 0; l < now.size(); ++l) {
      const std::int64_t pruned = rank_of(own) - 1;
      BOOST_TEST(test::same_bits(now[l].A.detach().narrow(0, 0, 1), then[l].A.detach().narrow(0, 0, 1)));
      BOOST_TEST(test::same_bits(now[l].B.detach().narrow(1, 0, 1), then[l].B.detach().narrow(1, 0, 1)));
      BOOST_TEST(now[l].A.detach().narrow(0, 1, pruned).abs().sum().item<float>() == 0.0f);
      BOOST_TEST(now[l].B.detach().narrow(1, 1, pruned).abs().sum().item<float>() == 0.0f);
    }
  }
}

BOOST_FIXTURE_TEST_CASE(hetlora_penalises_the_norm_of_the_ranks_that_may_go_next, WholeModels) {
  adapter::Parameters parameters = parameters_of(own);
  const auto rule = all_make_aggregation({.world = world,
                                          .method = find_method("hetlora"),
                                          .options = {.rank_regulariser = 0.25, .pruning_strength = 0.5},
                                          .users = models,
                                          .amounts = {},
                                          .parameters = parameters,
                                          .validation_loss = {}});
  const train::Regulariser::Term term = rule->regulariser().term();
  const std::int64_t kept = std::max<std::int64_t>(1, rank_of(own) / 2), tail = rank_of(own) - kept;
  BOOST_TEST(term.value.defined() == (tail > 0));
  if (tail == 0) return;
  double expected = 0.0;
  for (const adapter::Lora& lora : parameters.loras())
    expected += lora.A.detach().narrow(0, kept, tail).to(at::kDouble).norm().item<double>() *
                lora.B.detach().narrow(1, kept, tail).to(at::kDouble).norm().item<double>();
  BOOST_TEST(term.weight == 0.25);
  BOOST_TEST(term.value.item<double>() == expected, boost::test_tools::tolerance(1e-5));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
