// The mean over ranks against a mean by hand, for users with unequal numbers of experts. One rank is one
// user.
#include "comigs/federation/aggregation.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cstring>
#include <map>

#include "comigs/federation/method.hpp"
#include "support/tiny_base.hpp"

namespace comigs::federation {

namespace {

using test::same_bits;

struct Users {
  comm::Communicator world = comm::Communicator::world();
  std::int64_t own = world.rank();

  // As many of the numbers of experts as there are ranks.
  [[nodiscard]] std::vector<model::UserModel> make(const char* method,
                                                   std::vector<std::int64_t> experts) const {
    std::vector<config::User> users;
    for (int user = 0; user < world.size(); ++user)
      users.push_back({.experts = experts[static_cast<std::size_t>(user)], .lora_rank = 2});
    return user_models(find_method(method), users);
  }

  /// The numbers that user `user` begins with; every rank can work out all of them.
  static model::Parameters parameters_of(const std::vector<model::UserModel>& users, std::int64_t user) {
    return test::random_parameters(test::tiny_architecture(), users[static_cast<std::size_t>(user)],
                                   500 + static_cast<std::uint32_t>(user));
  }

  /// The mean of a slice over users, added in their order.
  static at::Tensor mean(const std::vector<model::UserModel>& users, const std::vector<std::int64_t>& holders,
                         const model::Slice& slice) {
    at::Tensor sum = at::zeros({slice.count}, at::kDouble);
    for (const std::int64_t user : holders) sum += model::view(parameters_of(users, user).values(), slice);
    return sum / static_cast<double>(holders.size());
  }

  [[nodiscard]] std::vector<std::int64_t> everyone() const {
    std::vector<std::int64_t> all;
    for (std::int64_t user = 0; user < world.size(); ++user) all.push_back(user);
    return all;
  }

  // Collective: whether a part of the block has the same bits on the first `count` ranks.
  [[nodiscard]] bool all_same_bits(const model::Parameters& parameters, const model::Slice& slice,
                                   int count) const {
    const at::Tensor part = own < count ? model::view(parameters.values(), slice) : at::empty({0});
    const auto blocks =
        world.all_gather_to_first({part.data_ptr<float>(), static_cast<std::size_t>(part.numel())});
    std::int64_t different = 0;
    for (std::size_t rank = 1; rank < blocks.size() && static_cast<int>(rank) < count; ++rank)
      if (std::memcmp(blocks[rank].data(), blocks[0].data(), blocks[0].size() * sizeof(float)) != 0)
        ++different;
    return world.all_sum(different) == 0;
  }
};

at::Tensor part(const at::Tensor& block, const model::Slice& slice) {
  return test::copy_of(model::view(block, slice));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(aggregation, Users)

BOOST_AUTO_TEST_CASE(generalist_of_unequal_users_is_the_mean_over_all) {
  const auto users = make("comigs-1gxs", {4, 2, 1, 1});
  for (const bool rank_order : {false, true}) {
    const model::Parameters parameters = parameters_of(users, own);
    const at::Tensor before = test::copy_of(parameters.values());
    Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host,
                            rank_order);
    aggregation.all_aggregate(parameters);
    for (const model::Slice& shared : {parameters.attention(), parameters.expert(0)}) {
      BOOST_TEST(
          test::close(model::view(parameters.values(), shared), mean(users, everyone(), shared), 1e-6));
      BOOST_TEST(all_same_bits(parameters, shared, world.size()));
    }
    // What lies behind is nobody else's: specialists and routers keep every bit.
    const std::int64_t end = parameters.expert(0).offset + parameters.expert(0).count;
    const model::Slice rest{end, parameters.values().numel() - end};
    BOOST_TEST(same_bits(part(parameters.values(), rest), part(before, rest)));
    BOOST_TEST(aggregation.bytes() == 4 * end);
    BOOST_TEST(aggregation.shares_anything());
  }
}

BOOST_AUTO_TEST_CASE(a_user_with_one_expert_takes_part) {
  // Only the last user, who has one expert, differs from zero: the others see its share.
  const auto users = make("comigs-1gxs", world.size() == 2 ? std::vector<std::int64_t>{4, 1}
                                                           : std::vector<std::int64_t>{4, 2, 2, 1});
  const model::Parameters parameters = parameters_of(users, own);
  at::Tensor values = parameters.values();
  if (own == world.size() - 1) {
    values.fill_(1.0);
  } else {
    values.zero_();
  }
  Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host, false);
  aggregation.all_aggregate(parameters);
  const at::Tensor generalist = model::view(values, parameters.expert(0));
  BOOST_TEST(same_bits(part(values, parameters.expert(0)), at::full_like(generalist, 1.0 / world.size())));
}

BOOST_AUTO_TEST_CASE(every_generalist_has_its_own_group) {
  const auto users = make("fedavg", {3, 2, 2, 1});
  const model::Parameters parameters = parameters_of(users, own);
  const at::Tensor before = test::copy_of(parameters.values());
  Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host, true);
  aggregation.all_aggregate(parameters);
  BOOST_TEST(test::close(part(parameters.values(), parameters.expert(0)),
                         mean(users, everyone(), parameters.expert(0)), 1e-6));
  const std::vector<std::int64_t> holders =
      world.size() == 2 ? std::vector<std::int64_t>{0, 1} : std::vector<std::int64_t>{0, 1, 2};
  if (parameters.user_model().experts >= 2)
    BOOST_TEST(test::close(part(parameters.values(), parameters.expert(1)),
                           mean(users, holders, parameters.expert(1)), 1e-6));
  if (parameters.user_model().experts == 3)
    BOOST_TEST(
        same_bits(part(parameters.values(), parameters.expert(2)), part(before, parameters.expert(2))));
}

BOOST_AUTO_TEST_CASE(specialists_share_attention_alone) {
  const auto users = make("comigs-2s", {2, 2, 2, 2});
  const model::Parameters parameters = parameters_of(users, own);
  const at::Tensor before = test::copy_of(parameters.values());
  Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host, false);
  aggregation.all_aggregate(parameters);
  const model::Slice rest{parameters.attention().count,
                          parameters.values().numel() - parameters.attention().count};
  BOOST_TEST(same_bits(part(parameters.values(), rest), part(before, rest)));
  BOOST_TEST(test::close(part(parameters.values(), parameters.attention()),
                         mean(users, everyone(), parameters.attention()), 1e-6));
}

BOOST_AUTO_TEST_CASE(local_users_send_nothing) {
  for (const char* method : {"local", "pretrained"}) {
    const auto users = make(method, {2, 3, 1, 2});
    const model::Parameters parameters = parameters_of(users, own);
    const at::Tensor before = test::copy_of(parameters.values());
    Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host, false);
    aggregation.all_aggregate(parameters);
    BOOST_TEST(same_bits(parameters.values(), before));
    BOOST_TEST(aggregation.bytes() == 0);
    BOOST_TEST(!aggregation.shares_anything());
    std::vector<double> alone(static_cast<std::size_t>(world.size()), 0.0);
    alone[static_cast<std::size_t>(own)] = 1.0;
    BOOST_TEST((aggregation.weights(own, world.size()) == alone));
  }
}

BOOST_AUTO_TEST_CASE(weights_are_uniform) {
  const auto users = make("comigs-1gxs", {4, 2, 1, 1});
  const model::Parameters parameters = parameters_of(users, own);
  const Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host,
                                false);
  const std::vector<double> uniform(static_cast<std::size_t>(world.size()), 1.0 / world.size());
  BOOST_TEST((aggregation.weights(own, world.size()) == uniform));
}

BOOST_AUTO_TEST_CASE(a_mean_of_equals_changes_nothing) {
  const auto users = make("comigs-2g", {2, 2, 2, 2});
  const model::Parameters parameters = parameters_of(users, 0);  // the same on every rank
  const at::Tensor before = test::copy_of(parameters.values());
  Aggregation aggregation(world, users, shared_slices(users, own, parameters), comm::Memory::host, false);
  for (int round = 0; round < 3; ++round) aggregation.all_aggregate(parameters);
  BOOST_TEST(same_bits(parameters.values(), before));  // 2 and 4 are powers of two: no rounding
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
