// Who is left goes on among themselves by every rule. One rank is one user; the first one drops out, so that
// the numbers of those who are left are no longer those of their places.
#include "comigs/run/present_aggregation.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>

#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::run {

namespace {

using test::copy_of;
using test::same_bits;

struct Left {
  comm::Communicator world = comm::Communicator::world();
  int users = world.size();
  std::int64_t own = world.rank();
  bool takes_part = own > 0;

  static std::int64_t tokens_of(int user) { return 100 * (user + 1); }

  [[nodiscard]] std::vector<adapter::UserModel> models(const char* method) const {
    return federation::user_models(
        federation::find_method(method),
        std::vector<config::User>(static_cast<std::size_t>(users), {.lora_rank = 2}));
  }
  static adapter::Parameters parameters_of(const adapter::UserModel& user_model, int user) {
    return test::random_parameters(test::tiny_architecture(), user_model,
                                   60 + static_cast<std::uint32_t>(user));
  }

  // Collective: checks one aggregation without user 0, who keeps what it has. `shares`: of all users.
  void all_check(const char* method, std::int64_t round, config::Averaging averaging,
                 const std::vector<double>& shares, bool is_a_mean) const {
    const std::vector<adapter::UserModel> all = models(method);
    adapter::Parameters parameters = parameters_of(all[0], static_cast<int>(own));
    const at::Tensor before = copy_of(parameters.values());
    std::vector<std::int64_t> tokens;
    for (int user = 0; user < users; ++user) tokens.push_back(tokens_of(user));
    int judged = 0;  // the first model that a user sees is the best by a perplexity of 1
    PresentAggregation aggregation(
        {.world = world,
         .method = federation::find_method(method),
         .options = {.averaging = averaging},
         .users = all,
         .amounts = tokens,
         .parameters = parameters,
         .validation_loss = [&](const at::Tensor&,
                                std::int64_t) { return std::log(judged++ == 0 ? 1.0 : 2.0); }},
        static_cast<std::size_t>(own));
    std::vector<std::size_t> left;
    for (int user = 1; user < users; ++user) left.push_back(static_cast<std::size_t>(user));
    aggregation.all_restrict(left);
    const federation::Aggregated done = aggregation.all_aggregate(round);
    if (!takes_part) {
      BOOST_TEST(same_bits(parameters.values(), before));
      BOOST_TEST(done.weights[0] == 1.0);
      BOOST_TEST(done.bytes == 0);
      return;
    }
    BOOST_TEST(done.weights == shares, boost::test_tools::tolerance(1e-6)
                                           << boost::test_tools::per_element());
    if (!is_a_mean) return;
    at::Tensor expected =
        at::zeros({parameters.layout().slice(adapter::select::factors()).count}, at::kDouble);
    for (int user = 1; user < users; ++user)
      expected += shares[static_cast<std::size_t>(user)] *
                  adapter::view(parameters_of(all[0], user).values(),
                                parameters.layout().slice(adapter::select::factors()))
                      .to(at::kDouble);
    BOOST_TEST(test::close(
        copy_of(adapter::view(parameters.values(), parameters.layout().slice(adapter::select::factors()))),
        expected, 1e-6));
  }

  // What `weight` gives the users who are left, as shares of their sum.
  template <class Weight>
  [[nodiscard]] std::vector<double> shares(const Weight& weight) const {
    std::vector<double> found = {0.0};
    double sum = 0.0;
    for (int user = 1; user < users; ++user) sum += found.emplace_back(weight(user));
    for (double& share : found) share /= sum;
    return found;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(present_aggregation, Left)

BOOST_AUTO_TEST_CASE(means_are_over_those_who_are_left) {
  all_check("fedavg", 1, config::Averaging::uniform, shares([](int) { return 1.0; }), true);
}

BOOST_AUTO_TEST_CASE(weights_by_tokens_are_by_theirs) {
  const auto tokens = shares([](int user) { return static_cast<double>(tokens_of(user)); });
  all_check("fedavg", 1, config::Averaging::tokens, tokens, true);
  all_check("flexlora", 1, config::Averaging::uniform, tokens, false);
}

BOOST_AUTO_TEST_CASE(collaboration_is_among_them) {
  all_check("pcl", 4, config::Averaging::uniform, shares([](int) { return 1.0; }), true);
  const auto judged = shares([](int user) { return user == 1 ? 1.0 : std::exp(-1.0); });
  all_check("pcl", 5, config::Averaging::uniform, judged, true);
}

BOOST_AUTO_TEST_CASE(padded_means_weigh_their_norms) {
  const std::vector<adapter::UserModel> all = models("hetlora");
  const std::size_t loras = parameters_of(all[0], 0).loras().size();
  std::vector<double> expected(static_cast<std::size_t>(users), 0.0);
  for (std::size_t l = 0; l < loras; ++l) {
    const auto of_lora = shares([&](int user) {
      const adapter::Parameters parameters = parameters_of(all[0], user);
      const adapter::Lora lora = parameters.loras()[l];
      return lora.B.detach().to(at::kDouble).mm(lora.A.detach().to(at::kDouble)).norm().item<double>();
    });
    for (std::size_t user = 0; user < expected.size(); ++user)
      expected[user] += of_lora[user] / static_cast<double>(loras);
  }
  all_check("hetlora", 1, config::Averaging::uniform, expected, false);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
