// Clusters of what gates read, found by ranks together, against those that one process finds.
#include "comigs/run/warmup_groups.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <functional>

#include "comigs/base/error.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/train/clusters.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::run {

namespace {

using Labels = std::vector<std::int64_t>;

const auto per_element = boost::test_tools::per_element();
constexpr std::int64_t groups = 3;
const StreamKey of_all{.seed = 4, .user = shared_user, .stream = Stream::gate_clusters};

config::Config small_config(int users) {
  config::Config config;
  config.run.rounds = 3;
  config.run.seed = 4;
  config.method.gate_warmup_rounds = 1;
  config.method.gate_targets = config::GateTargets::clusters;
  for (int user = 0; user < users; ++user)
    config.users.push_back({.experts = groups,
                            .prompt_tokens = 2,
                            .prompt_layer = 1,
                            .gate_width = 4,
                            .batch_sequences = 5,
                            .context_tokens = 6,
                            .local_steps = 4});
  return config;
}

// A user on each rank; a rank has files of its own of what all of them have.
struct Examples : TemporaryFolder {
  comm::Communicator world = comm::Communicator::world();
  Roster roster{world, static_cast<std::size_t>(world.size())};
  std::size_t own = roster.own().front();
  config::Config config = small_config(world.size());
  std::unique_ptr<model::BaseModel> base = test::tiny_base();
  std::vector<data::UserData> data;

  Examples() {
    for (std::size_t user = 0; user < roster.users(); ++user)
      data.push_back({.train = split(user, 0), .validation = split(user, 1), .test = split(user, 2)});
  }

  [[nodiscard]] data::TokenShard split(std::size_t user, std::uint32_t number) const {
    std::vector<std::pair<std::int64_t, std::int64_t>> lengths;
    for (std::size_t i = 0; i < 12 + 5 * user; ++i) lengths.emplace_back(1 + i % 3, 1 + (i + user) % 4);
    const std::vector<data::Example> examples = test::examples_of(lengths);
    const std::int64_t tokens = examples.back().begin + examples.back().tokens();
    const auto draw = static_cast<std::uint32_t>(10 * user + number);
    return {test::describe_examples(folder / (std::to_string(draw) + ".bin"),
                                    test::random_tokens(tokens, 37, draw), examples),
            37};
  }

  [[nodiscard]] SeatSetup setup_of(const federation::Method& method, const adapter::UserModel& model,
                                   std::size_t user) const {
    train::Texts texts;
    for (std::size_t u = 0; u < data.size(); ++u) {
      if (u != user && !method.rule.every_step) continue;
      for (const data::TokenShard& text : job::expert_texts(config, data[u])) texts.experts.push_back(text);
      texts.routers.push_back(data[u].train);
    }
    return {.config = config,
            .method = method,
            .user_model = model,
            .base = *base,
            .device = at::kCPU,
            .user = user,
            .data = data[user],
            .texts = std::move(texts)};
  }

  // Collective. What the rank's warm-up steps take for categories, against `expected` [example].
  void check_steps(const char* name, const std::function<Labels(const std::vector<at::Tensor>&)>& expected) {
    const federation::Method& method = federation::find_method(name);
    const std::vector<adapter::UserModel> models = federation::user_models(method, config.users);
    std::vector<at::Tensor> features;  // [user]
    for (std::size_t user = 0; user < data.size(); ++user)
      features.push_back(Seat(setup_of(method, models[user], user)).gate_features({}));
    const Labels labels = expected(features);
    Seat seat(setup_of(method, models[own], own));
    if (method.rule.every_step) seat.trainer().exchange_gradients([](const at::Tensor&) {});
    all_find_warmup_groups(world, roster, seat, {});
    int steps = 0;
    seat.trainer().observe([&](train::Phase phase, const data::Batch& batch, const train::StepLosses&) {
      for (std::size_t row = 0; row < batch.example.size(); ++row)
        BOOST_TEST(
            batch.category[row] ==
            (phase == train::Phase::warmup ? labels.at(static_cast<std::size_t>(batch.example[row])) : 0));
      steps += phase == train::Phase::warmup ? 1 : 0;
    });
    for (const std::int64_t round : {1, 2}) (void)seat.trainer().train_round(round);
    BOOST_TEST(steps == 4);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(warmup_groups, Examples)

BOOST_AUTO_TEST_CASE(a_shared_gate_has_the_clusters_of_all_users_examples) {
  check_steps("mop", [&](const auto& features) {
    return train::all_cluster({.points = features}, groups, of_all)[own];
  });
}

BOOST_AUTO_TEST_CASE(one_model_draws_from_all_of_them) {
  config.method.train_on = config::TrainOn::train_and_validation;
  check_steps("mop-centralized", [&](const auto& features) {
    Labels all;
    for (const Labels& labels : train::all_cluster({.points = features}, groups, of_all))
      all.insert(all.end(), labels.begin(), labels.end());
    return all;
  });
}

BOOST_AUTO_TEST_CASE(a_user_s_own_gate_has_its_own_clusters) {
  for (const char* method : {"mop-local", "mop-own-gate"})
    check_steps(method, [&](const auto& features) {
      StreamKey key = of_all;
      key.user = static_cast<std::uint32_t>(own);
      return train::all_cluster({.points = {features[own]}}, groups, key).front();
    });
}

BOOST_AUTO_TEST_CASE(who_has_one_group_has_no_part_in_it) {
  config.users.back().experts = 1;
  const federation::Method& method = federation::find_method("mop-local");
  const std::vector<adapter::UserModel> models = federation::user_models(method, config.users);
  Seat seat(setup_of(method, models[own], own));
  all_find_warmup_groups(world, roster, seat, {});
  (void)seat.trainer().train_round(1);
}

// Four users, whatever the number of ranks.
BOOST_AUTO_TEST_CASE(users_may_be_on_any_ranks) {
  const Roster four(world, 4);
  std::vector<at::Tensor> points;
  for (const std::int64_t user : {0, 1, 2, 3})
    points.push_back(test::normal({5 + 3 * user, 4}, static_cast<std::uint32_t>(user)));
  const std::vector<Labels> expected = train::all_cluster({.points = points}, groups, of_all);
  train::HeldPoints held{.first = four.own().front()};
  for (const std::size_t user : four.own()) held.points.push_back(points[user]);
  held.all_gather = [&](std::span<const double> block) { return four.all_gather(block); };
  const std::vector<Labels> found = train::all_cluster(held, groups, of_all);
  for (const std::size_t user : four.own())
    BOOST_TEST(found[user - held.first] == expected[user], per_element);
}

BOOST_AUTO_TEST_CASE(nobody_goes_on_where_one_is_stopped) {
  const federation::Method& method = federation::find_method("mop");
  const std::vector<adapter::UserModel> models = federation::user_models(method, config.users);
  Seat seat(setup_of(method, models[own], own));
  BOOST_CHECK_THROW(all_find_warmup_groups(world, roster, seat, [&] { return own == 0; }), PeerError);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
