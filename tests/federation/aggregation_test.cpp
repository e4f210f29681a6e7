// The mean over ranks against a mean by hand, for users with unequal numbers of experts. One rank is one
// user.
#include "comigs/federation/aggregation.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cstring>
#include <map>

#include "comigs/federation/method.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::federation {

namespace {

using test::same_bits;

struct Users {
  comm::Communicator world = comm::Communicator::world();
  std::int64_t own = world.rank();

  // As many of the numbers of experts as there are ranks.
  [[nodiscard]] std::vector<adapter::UserModel> make(const char* method,
                                                     std::vector<std::int64_t> experts) const {
    std::vector<config::User> users;
    for (int user = 0; user < world.size(); ++user)
      users.push_back({.experts = experts[static_cast<std::size_t>(user)], .lora_rank = 2});
    return user_models(find_method(method), users);
  }

  // Collective. One aggregation by the method's rule.
  Aggregated all_aggregate(const char* method, const std::vector<adapter::UserModel>& users,
                           adapter::Parameters& parameters, comm::Sums sums = comm::Sums::any_order,
                           config::Averaging averaging = config::Averaging::uniform) const {
    std::vector<std::int64_t> tokens;
    for (const std::int64_t user : everyone()) tokens.push_back(tokens_of(user));
    return all_make_aggregation({.world = world,
                                 .method = find_method(method),
                                 .options = {.averaging = averaging},
                                 .users = users,
                                 .amounts = tokens,
                                 .parameters = parameters,
                                 .sums = sums,
                                 .validation_loss = {}})
        ->all_aggregate(1);
  }

  /// The numbers that user `user` begins with; every rank can work out all of them.
  static adapter::Parameters parameters_of(const std::vector<adapter::UserModel>& users, std::int64_t user) {
    return test::random_parameters(test::tiny_architecture(), users[static_cast<std::size_t>(user)],
                                   500 + static_cast<std::uint32_t>(user));
  }

  static std::int64_t tokens_of(std::int64_t user) { return 100 * (user + 1); }

  // A user's weight among the holders, before it is divided by their sum.
  static double share_of(std::int64_t user, config::Averaging averaging) {
    return averaging == config::Averaging::uniform ? 1.0 : static_cast<double>(tokens_of(user));
  }

  /// The mean of a slice over users, added in their order.
  static at::Tensor mean(const std::vector<adapter::UserModel>& users,
                         const std::vector<std::int64_t>& holders, const adapter::Slice& slice,
                         config::Averaging averaging = config::Averaging::uniform) {
    at::Tensor sum = at::zeros({slice.count}, at::kDouble);
    double shares = 0.0;
    for (const std::int64_t user : holders) {
      sum += share_of(user, averaging) *
             adapter::view(parameters_of(users, user).values(), slice).to(at::kDouble);
      shares += share_of(user, averaging);
    }
    return sum / shares;
  }

  [[nodiscard]] std::vector<std::int64_t> everyone() const {
    std::vector<std::int64_t> all;
    for (std::int64_t user = 0; user < world.size(); ++user) all.push_back(user);
    return all;
  }

  // Collective: whether a part of the block has the same bits on the first `count` ranks.
  [[nodiscard]] bool all_same_bits(const adapter::Parameters& parameters, const adapter::Slice& slice,
                                   int count) const {
    const at::Tensor part = own < count ? adapter::view(parameters.values(), slice) : at::empty({0});
    const auto blocks =
        world.all_gather_to_first({part.data_ptr<float>(), static_cast<std::size_t>(part.numel())});
    std::int64_t different = 0;
    for (std::size_t rank = 1; rank < blocks.size() && static_cast<int>(rank) < count; ++rank)
      if (std::memcmp(blocks[rank].data(), blocks[0].data(), blocks[0].size() * sizeof(float)) != 0)
        ++different;
    return world.all_sum(different) == 0;
  }
};

at::Tensor part(const at::Tensor& block, const adapter::Slice& slice) {
  return test::copy_of(adapter::view(block, slice));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(aggregation, Users)

// mop.md check 11: what is shared becomes the weighted mean, the rest keeps its bits.
BOOST_AUTO_TEST_CASE(groups_and_gates_become_the_mean_by_examples) {
  constexpr auto by_examples = config::Averaging::examples;
  struct Shared {
    const char* method;
    std::int64_t groups;  // of three
    bool gate;
  };
  for (const Shared& shared : {Shared{"mop", 3, true}, Shared{"mop-own-gate", 3, false},
                               Shared{"mop-1gxs", 1, false}, Shared{"mop-mgxs", 1, false}}) {
    const auto users = make(shared.method, {3, 3, 3, 3});
    adapter::Parameters parameters = parameters_of(users, own);
    const adapter::Layout layout = parameters.layout();
    const at::Tensor before = test::copy_of(parameters.values());
    (void)all_aggregate(shared.method, users, parameters, comm::Sums::rank_order, by_examples);
    const auto check = [&](const adapter::Slice& slice, bool is_shared) {
      if (is_shared) {
        BOOST_TEST(
            test::close(part(parameters.values(), slice), mean(users, everyone(), slice, by_examples), 1e-6));
        BOOST_TEST(all_same_bits(parameters, slice, world.size()));
      } else {
        BOOST_TEST(same_bits(part(parameters.values(), slice), part(before, slice)));
      }
    };
    for (std::int64_t group = 0; group < 3; ++group)
      check(layout.slice(adapter::select::expert(group)), group < shared.groups);
    check(layout.slice(adapter::select::routers()), shared.gate);
  }
}

BOOST_AUTO_TEST_CASE(generalist_of_unequal_users_is_the_mean_over_all) {
  const auto users = make("comigs-1gxs", {4, 2, 1, 1});
  for (const comm::Sums sums : {comm::Sums::any_order, comm::Sums::rank_order, comm::Sums::bf16}) {
    adapter::Parameters parameters = parameters_of(users, own);
    const at::Tensor before = test::copy_of(parameters.values());
    const Aggregated done = all_aggregate("comigs-1gxs", users, parameters, sums);
    // A number and a sum are each rounded to eight bits.
    const bool narrow = sums == comm::Sums::bf16;
    for (const adapter::Slice& shared : {parameters.layout().slice(adapter::select::attention()),
                                         parameters.layout().slice(adapter::select::expert(0))}) {
      BOOST_TEST(test::close(adapter::view(parameters.values(), shared), mean(users, everyone(), shared),
                             narrow ? 8e-3 : 1e-6));
      BOOST_TEST(all_same_bits(parameters, shared, world.size()));
    }
    // What lies behind is nobody else's: specialists and routers keep every bit.
    const std::int64_t end = parameters.layout().slice(adapter::select::expert(0)).offset +
                             parameters.layout().slice(adapter::select::expert(0)).count;
    const adapter::Slice rest{end, parameters.values().numel() - end};
    BOOST_TEST(same_bits(part(parameters.values(), rest), part(before, rest)));
    BOOST_TEST(done.bytes == (narrow ? 2 : 4) * end);
  }
}

BOOST_AUTO_TEST_CASE(a_user_with_one_expert_takes_part) {
  // Only the last user, who has one expert, differs from zero: the others see its share.
  const auto users = make("comigs-1gxs", world.size() == 2 ? std::vector<std::int64_t>{4, 1}
                                                           : std::vector<std::int64_t>{4, 2, 2, 1});
  adapter::Parameters parameters = parameters_of(users, own);
  at::Tensor values = parameters.values();
  if (own == world.size() - 1) {
    values.fill_(1.0);
  } else {
    values.zero_();
  }
  (void)all_aggregate("comigs-1gxs", users, parameters);
  const at::Tensor generalist = adapter::view(values, parameters.layout().slice(adapter::select::expert(0)));
  BOOST_TEST(same_bits(part(values, parameters.layout().slice(adapter::select::expert(0))),
                       at::full_like(generalist, 1.0 / world.size())));
}

BOOST_AUTO_TEST_CASE(every_generalist_has_its_own_group) {
  const auto users = make("fedavg", {3, 2, 2, 1});
  adapter::Parameters parameters = parameters_of(users, own);
  const at::Tensor before = test::copy_of(parameters.values());
  (void)all_aggregate("fedavg", users, parameters, comm::Sums::rank_order);
  BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::expert(0))),
                         mean(users, everyone(), parameters.layout().slice(adapter::select::expert(0))),
                         1e-6));
  const std::vector<std::int64_t> holders =
      world.size() == 2 ? std::vector<std::int64_t>{0, 1} : std::vector<std::int64_t>{0, 1, 2};
  if (parameters.user_model().experts >= 2)
    BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::expert(1))),
                           mean(users, holders, parameters.layout().slice(adapter::select::expert(1))),
                           1e-6));
  if (parameters.user_model().experts == 3)
    BOOST_TEST(same_bits(part(parameters.values(), parameters.layout().slice(adapter::select::expert(2))),
                         part(before, parameters.layout().slice(adapter::select::expert(2)))));
}

BOOST_AUTO_TEST_CASE(specialists_share_attention_alone) {
  const auto users = make("comigs-2s", {2, 2, 2, 2});
  adapter::Parameters parameters = parameters_of(users, own);
  const at::Tensor before = test::copy_of(parameters.values());
  (void)all_aggregate("comigs-2s", users, parameters);
  const adapter::Slice rest{
      parameters.layout().slice(adapter::select::attention()).count,
      parameters.values().numel() - parameters.layout().slice(adapter::select::attention()).count};
  BOOST_TEST(same_bits(part(parameters.values(), rest), part(before, rest)));
  BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::attention())),
                         mean(users, everyone(), parameters.layout().slice(adapter::select::attention())),
                         1e-6));
}

BOOST_AUTO_TEST_CASE(local_users_send_nothing) {
  for (const char* method : {"local", "pretrained"}) {
    const auto users = make(method, {2, 3, 1, 2});
    adapter::Parameters parameters = parameters_of(users, own);
    const at::Tensor before = test::copy_of(parameters.values());
    const Aggregated done = all_aggregate(method, users, parameters);
    BOOST_TEST(same_bits(parameters.values(), before));
    BOOST_TEST(done.bytes == 0);
    std::vector<double> alone(static_cast<std::size_t>(world.size()), 0.0);
    alone[static_cast<std::size_t>(own)] = 1.0;
    BOOST_TEST((done.weights == alone));
  }
}

BOOST_AUTO_TEST_CASE(weights_are_uniform) {
  const auto users = make("comigs-1gxs", {4, 2, 1, 1});
  adapter::Parameters parameters = parameters_of(users, own);
  const std::vector<double> uniform(static_cast<std::size_t>(world.size()), 1.0 / world.size());
  BOOST_TEST((all_aggregate("comigs-1gxs", users, parameters).weights == uniform));
}

BOOST_AUTO_TEST_CASE(weights_by_tokens_are_shares_of_all_holders_tokens) {
  const auto users = make("fedavg", {1, 1, 1, 1});
  adapter::Parameters parameters = parameters_of(users, own);
  const Aggregated done =
      all_aggregate("fedavg", users, parameters, comm::Sums::any_order, config::Averaging::tokens);
  const at::Tensor expected = mean(users, everyone(), parameters.layout().slice(adapter::select::factors()),
                                   config::Averaging::tokens);
  BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::factors())),
                         expected, 1e-6));
  const std::vector<double> shares =
      world.size() == 2 ? std::vector{1.0 / 3, 2.0 / 3} : std::vector{0.1, 0.2, 0.3, 0.4};
  BOOST_TEST(done.weights == shares, boost::test_tools::per_element());
}

// On four ranks generalist 1 has fewer holders than attention and generalist 0: its weights are among them,
// and the mixing row is the mean over all numbers that are shared.
BOOST_AUTO_TEST_CASE(weights_are_among_the_holders_of_each_part) {
  const auto users = make("fedavg", {3, 2, 2, 1});
  const std::vector<std::int64_t> few =
      world.size() == 2 ? std::vector<std::int64_t>{0, 1} : std::vector<std::int64_t>{0, 1, 2};
  for (const config::Averaging averaging : {config::Averaging::uniform, config::Averaging::tokens}) {
    adapter::Parameters parameters = parameters_of(users, own);
    const Aggregated done = all_aggregate("fedavg", users, parameters, comm::Sums::rank_order, averaging);
    std::map<std::int64_t, double> row;
    double numbers = 0.0;
    const auto check = [&](const adapter::Slice& slice, const std::vector<std::int64_t>& holders) {
      BOOST_TEST(test::close(part(parameters.values(), slice), mean(users, holders, slice, averaging), 1e-6));
      double shares = 0.0;
      for (const std::int64_t user : holders) shares += share_of(user, averaging);
      for (const std::int64_t user : holders)
        row[user] += share_of(user, averaging) / shares * static_cast<double>(slice.count);
      numbers += static_cast<double>(slice.count);
    };
    check(parameters.layout().slice(adapter::select::attention()), everyone());
    check(parameters.layout().slice(adapter::select::expert(0)), everyone());
    if (parameters.user_model().experts >= 2)
      check(parameters.layout().slice(adapter::select::expert(1)), few);
    for (const std::int64_t user : everyone())
      BOOST_TEST(done.weights[static_cast<std::size_t>(user)] == row[user] / numbers,
                 boost::test_tools::tolerance(1e-12));
  }
}

BOOST_AUTO_TEST_CASE(a_mean_of_equals_changes_nothing) {
  const auto users = make("comigs-2g", {2, 2, 2, 2});
  adapter::Parameters parameters = parameters_of(users, 0);  // the same on every rank
  const at::Tensor before = test::copy_of(parameters.values());
  for (int round = 0; round < 3; ++round) (void)all_aggregate("comigs-2g", users, parameters);
  BOOST_TEST(same_bits(parameters.values(), before));  // 2 and 4 are powers of two: no rounding
}

BOOST_AUTO_TEST_CASE(only_the_shared_factor_is_averaged) {
  for (const auto& [method, shared, own_factor] :
       {std::tuple{"ffa-lora", adapter::Factors::B, adapter::Factors::A},
        std::tuple{"fedsa-lora", adapter::Factors::A, adapter::Factors::B}}) {
    const auto users = make(method, {2, 2, 2, 2});
    adapter::Parameters parameters = parameters_of(users, own);
    const at::Tensor before = test::copy_of(parameters.values());
    const Aggregated done = all_aggregate(method, users, parameters);
    std::int64_t sent = 0;
    const auto check = [&](const adapter::Slice& averaged, const adapter::Slice& kept) {
      BOOST_TEST(test::close(part(parameters.values(), averaged), mean(users, everyone(), averaged), 1e-6));
      BOOST_TEST(same_bits(part(parameters.values(), kept), part(before, kept)));
      sent += 4 * averaged.count;
    };
    check(parameters.layout().slice(adapter::select::attention(shared)),
          parameters.layout().slice(adapter::select::attention(own_factor)));
    for (const std::int64_t e : {0, 1})
      check(parameters.layout().slice(adapter::select::expert(e, shared)),
            parameters.layout().slice(adapter::select::expert(e, own_factor)));
    BOOST_TEST(done.bytes == sent);
  }
}

BOOST_AUTO_TEST_CASE(a_chosen_generalist_is_averaged_over_its_subscribers_wherever_it_lies) {
  // User 0 holds generalists 0 and 2, the last user 2 only, in another place of its block; others hold 0.
  std::vector<config::User> settings(static_cast<std::size_t>(world.size()), {.experts = 2, .lora_rank = 2});
  settings.front().experts = 3;
  settings.front().generalists = {0, 2};
  settings.back().generalists = {2};
  const auto users = user_models(find_method("comigs-mgxs"), settings);
  adapter::Parameters parameters = parameters_of(users, own);
  const at::Tensor before = test::copy_of(parameters.values());
  (void)all_aggregate("comigs-mgxs", users, parameters);
  const auto last = world.size() - 1;
  const adapter::Parameters first = parameters_of(users, 0), other = parameters_of(users, last);
  const at::Tensor expected = (part(first.values(), first.layout().slice(adapter::select::expert(1))) +
                               part(other.values(), other.layout().slice(adapter::select::expert(0)))) /
                              2;
  if (own == 0)
    BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::expert(1))),
                           expected, 1e-6));
  if (own == last) {
    BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::expert(0))),
                           expected, 1e-6));
    BOOST_TEST(same_bits(part(parameters.values(), parameters.layout().slice(adapter::select::expert(1))),
                         part(before, parameters.layout().slice(adapter::select::expert(1)))));
  }
  if (world.size() == 4 && own == 1)
    BOOST_TEST(test::close(part(parameters.values(), parameters.layout().slice(adapter::select::expert(0))),
                           mean(users, {0, 1, 2}, parameters.layout().slice(adapter::select::expert(0))),
                           1e-6));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
