// Which parts of the block a user shares with whom.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include "comigs/federation/method.hpp"
#include "comigs/federation/shared_slices.hpp"

namespace comigs::federation {

namespace {

using Holders = std::vector<std::int64_t>;

model::Architecture architecture() { return model::gpt2_architecture(2, 8, 2, 10, 8); }

std::vector<adapter::UserModel> users_of(const char* method, const std::vector<std::int64_t>& experts) {
  std::vector<config::User> users;
  for (const std::int64_t number : experts) users.push_back({.experts = number, .lora_rank = 2});
  return user_models(find_method(method), users);
}

struct Share {
  adapter::Parameters parameters;
  std::vector<SharedSlice> slices;
};

Share share_of(const std::vector<adapter::UserModel>& users, std::int64_t user) {
  adapter::Parameters parameters(architecture(), users[static_cast<std::size_t>(user)], at::kCPU);
  std::vector<SharedSlice> slices = shared_slices(users, user, parameters.layout());
  return {std::move(parameters), std::move(slices)};
}

void check(const SharedSlice& found, std::int64_t offset, std::int64_t count, const Holders& holders) {
  BOOST_TEST(found.slice.offset == offset);
  BOOST_TEST(found.slice.count == count);
  BOOST_TEST(found.holders == holders);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(slices_of_users)

BOOST_AUTO_TEST_CASE(attention_and_generalist_of_all_are_one_slice) {
  const auto users = users_of("comigs-1gxs", {4, 2, 1, 1});
  for (const std::int64_t user : {0, 1, 2, 3}) {
    const Share share = share_of(users, user);
    BOOST_TEST_REQUIRE(share.slices.size() == 1u);
    check(share.slices[0], 0,
          share.parameters.layout().slice(adapter::select::attention()).count +
              share.parameters.layout().slice(adapter::select::expert(0)).count,
          {0, 1, 2, 3});
  }
}

BOOST_AUTO_TEST_CASE(users_whose_numbers_are_all_shared_have_one_model) {
  const auto of = [](const char* method, const std::vector<std::int64_t>& experts, std::int64_t user) {
    const auto users = users_of(method, experts);
    return users_of_one_model(find_method(method).rule, users, user,
                              adapter::Layout(architecture(), users[static_cast<std::size_t>(user)]));
  };
  const Holders all = {0, 1, 2}, alone = {1};
  for (const char* method : {"pretrained", "centralized", "fedavg", "ffa-lora", "mop", "mop-centralized",
                             "mop-equal", "fedprompt", "prompt-centralized"})
    BOOST_TEST(of(method, {2, 2, 2}, 1) == all, method);
  // Routers, gates, experts or factors of their own; what a rule makes for each.
  for (const char* method : {"local", "fedsa-lora", "pcl", "fdlora", "hetlora", "fedavg-moe", "comigs-2g",
                             "comigs-1g1s", "mop-local", "mop-own-gate", "mop-1g1s"})
    BOOST_TEST(of(method, {2, 2, 2}, 1) == alone, method);
  BOOST_TEST(of("fedavg", {2, 1, 2}, 0) == (Holders{0, 2}));
  BOOST_TEST(of("fedavg", {2, 1, 2}, 1) == alone);
}

BOOST_AUTO_TEST_CASE(two_specialists_share_attention_alone) {
  const Share share = share_of(users_of("comigs-2s", {2, 2}), 1);
  BOOST_TEST_REQUIRE(share.slices.size() == 1u);
  check(share.slices[0], 0, share.parameters.layout().slice(adapter::select::attention()).count, {0, 1});
}

BOOST_AUTO_TEST_CASE(all_experts_shared_is_one_slice_without_the_routers) {
  const Share share = share_of(users_of("comigs-2g", {2, 2, 2}), 0);
  BOOST_TEST_REQUIRE(share.slices.size() == 1u);
  check(share.slices[0], 0, share.parameters.layout().slice(adapter::select::factors()).count, {0, 1, 2});
  BOOST_TEST(share.parameters.layout().slice(adapter::select::routers()).count > 0);
}

BOOST_AUTO_TEST_CASE(generalists_are_averaged_over_those_who_hold_them) {
  // FedAvg with 3, 2 and 1 experts: expert 1 belongs to users 0 and 1, expert 2 to nobody else than user 0.
  const auto users = users_of("fedavg", {3, 2, 1});
  const Share first = share_of(users, 0), second = share_of(users, 1), third = share_of(users, 2);
  for (const Share* share : {&first, &second}) {
    BOOST_TEST_REQUIRE(share->slices.size() == 2u);
    check(share->slices[0], 0,
          share->parameters.layout().slice(adapter::select::attention()).count +
              share->parameters.layout().slice(adapter::select::expert(0)).count,
          {0, 1, 2});
    check(share->slices[1], share->parameters.layout().slice(adapter::select::expert(1)).offset,
          share->parameters.layout().slice(adapter::select::expert(1)).count, {0, 1});
  }
  BOOST_TEST_REQUIRE(third.slices.size() == 1u);
}

BOOST_AUTO_TEST_CASE(nothing_is_shared_alone_or_without_parameters) {
  BOOST_TEST(share_of(users_of("local", {2, 2}), 0).slices.empty());
  BOOST_TEST(share_of(users_of("pretrained", {2, 2}), 1).slices.empty());
  BOOST_TEST(share_of(users_of("fedavg", {2}), 0).slices.empty());
}

BOOST_AUTO_TEST_CASE(neighbours_with_other_holders_stay_apart) {
  // Attention of one's own, generalists shared: the slice begins behind the attention.
  auto users = users_of("fedavg", {2, 2});
  for (adapter::UserModel& user : users) user.shared_attention = false;
  const Share share = share_of(users, 0);
  BOOST_TEST_REQUIRE(share.slices.size() == 1u);
  check(share.slices[0], share.parameters.layout().slice(adapter::select::attention()).count,
        share.parameters.layout().slice(adapter::select::experts()).count, {0, 1});
}

BOOST_AUTO_TEST_CASE(slices_are_joined_alike_on_all_holders) {
  // Generalists 0 and 2 have the same holders, but generalist 1 lies between them in user 1's block only: a
  // slice of user 0 over both would meet two slices of user 1.
  std::vector<config::User> settings(2, {.experts = 3, .lora_rank = 2});
  settings[0].generalists = {0, 2};
  settings[1].generalists = {0, 1, 2};
  const auto users = user_models(find_method("comigs-mgxs"), settings);
  const Share first = share_of(users, 0), second = share_of(users, 1);
  BOOST_TEST_REQUIRE(first.slices.size() == second.slices.size());
  for (std::size_t i = 0; i < first.slices.size(); ++i)
    BOOST_TEST(first.slices[i].slice.count == second.slices[i].slice.count);
  BOOST_TEST(first.slices.size() == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
