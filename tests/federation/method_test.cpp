// The table of methods, and what a method makes of each user's settings.
#include "comigs/federation/method.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "comigs/base/error.hpp"
#include "support/messages.hpp"

namespace comigs::federation {

namespace {

using test::check_contains;

std::vector<config::User> users_with(const std::vector<std::int64_t>& experts) {
  std::vector<config::User> users;
  for (const std::int64_t number : experts) users.push_back({.experts = number});
  return users;
}

std::string refusal(const char* method, const std::vector<config::User>& users) {
  return test::message_of<ConfigError>([&] { (void)user_models(find_method(method), users); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(methods_table)

BOOST_AUTO_TEST_CASE(names_are_unique_and_found) {
  std::set<std::string> names;
  for (const Method& method : methods()) {
    names.insert(method.name);
    BOOST_TEST((&find_method(method.name) == &method));
    BOOST_TEST(std::string(method.summary).size() > 10u);
    BOOST_TEST(!std::string(method.paper).empty());
  }
  BOOST_TEST(names.size() == methods().size());
  for (const char* name :
       {"pretrained", "local", "fedavg", "comigs-2s", "comigs-2g", "comigs-1g1s", "comigs-1gxs"})
    BOOST_TEST(names.contains(name));
}

BOOST_AUTO_TEST_CASE(rows_make_sense) {
  for (const Method& method : methods()) {
    const bool routed = method.gate == model::Gate::top_k;
    BOOST_TEST((routed || method.router_training == train::RouterTraining::none),
               method.name << " trains routers that it does not have");
    BOOST_TEST((!routed || method.router_training != train::RouterTraining::none),
               method.name << " never trains its routers");
    BOOST_TEST((method.gate != model::Gate::none || method.experts == 0), method.name);
    BOOST_TEST((method.router_training != train::RouterTraining::joint ||
                method.router_data == train::RouterData::training),
               method.name);
  }
}

BOOST_AUTO_TEST_CASE(rows_are_those_of_the_paper) {
  // What is shared, from methods.md: experts, attention, and the data that routers see.
  struct Row {
    Sharing experts;
    bool attention;
    train::RouterData data;
  };
  using enum train::RouterData;
  const std::map<std::string, Row> rows = {{"comigs-2s", {Sharing::none, true, validation}},
                                           {"comigs-2g", {Sharing::all, true, validation}},
                                           {"comigs-1g1s", {Sharing::first, true, validation}},
                                           {"comigs-1gxs", {Sharing::first, true, validation}},
                                           {"comigs-1g1s-tr", {Sharing::first, true, training}},
                                           {"local-moe-tr", {Sharing::none, true, training}},
                                           {"fedavg-moe-tr", {Sharing::all, true, training}}};
  for (const auto& [name, row] : rows) {
    const Method& method = find_method(name);
    BOOST_TEST((method.experts_shared == row.experts), name);
    BOOST_TEST(method.attention_shared == row.attention, name);
    BOOST_TEST((method.router_data == row.data), name);
    BOOST_TEST((method.router_training == train::RouterTraining::alternating), name);
  }
  BOOST_TEST(!find_method("local").attention_shared);
  BOOST_TEST((find_method("local").experts_shared == Sharing::none));
  BOOST_TEST((find_method("fedavg").experts_shared == Sharing::all));
  BOOST_TEST((find_method("fedavg").gate == model::Gate::equal));
}

BOOST_AUTO_TEST_CASE(a_mistyped_name_gets_a_suggestion_and_the_list) {
  const std::string message = test::message_of<ConfigError>([] { (void)find_method("comigs-1g1"); });
  check_contains(message, {"unknown method 'comigs-1g1'", "did you mean 'comigs-1g1s'?",
                           "known: pretrained, local, fedavg"});
  const std::string far = test::message_of<ConfigError>([] { (void)find_method("quantum-annealing"); });
  BOOST_TEST(far.find("did you mean") == std::string::npos);
  check_contains(far, {"comigs-1gxs"});
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(models_of_users)

BOOST_AUTO_TEST_CASE(generalists_come_from_the_sharing) {
  const auto generalists = [](const char* method, std::int64_t experts) {
    return user_models(find_method(method), users_with({experts, experts})).front().generalists;
  };
  BOOST_TEST(generalists("comigs-1g1s", 2) == 1);
  BOOST_TEST(generalists("comigs-2g", 2) == 2);
  BOOST_TEST(generalists("comigs-2s", 2) == 0);
  BOOST_TEST(generalists("comigs-1gxs", 4) == 1);
  BOOST_TEST(generalists("comigs-1gxs", 1) == 1);
  BOOST_TEST(generalists("fedavg", 3) == 3);
  BOOST_TEST(generalists("local", 3) == 0);
}

BOOST_AUTO_TEST_CASE(settings_of_each_user_pass_through) {
  std::vector<config::User> users = users_with({4, 2, 1, 1});
  users[0].top_k = 3;
  const std::vector<model::UserModel> models = user_models(find_method("comigs-1gxs"), users);
  BOOST_TEST_REQUIRE(models.size() == 4u);
  BOOST_TEST(models[0].experts == 4);
  BOOST_TEST(models[0].top_k == 3);
  BOOST_TEST(models[1].top_k == 2);
  BOOST_TEST(models[2].top_k == 1);  // never more than there are
  BOOST_TEST(models[0].lora_rank == 8);
  BOOST_TEST(models[0].lora_alpha == 16.0);
  BOOST_TEST(models[1].routed());
  BOOST_TEST(!models[2].routed());
}

BOOST_AUTO_TEST_CASE(pretrained_trains_nothing_whatever_is_set) {
  const std::vector<model::UserModel> models = user_models(find_method("pretrained"), users_with({2, 4}));
  for (const model::UserModel& model : models) {
    BOOST_TEST(model.experts == 0);
    BOOST_TEST(model.generalists == 0);
    BOOST_TEST((model.gate == model::Gate::none));
    BOOST_TEST(!model.shared_attention);
  }
}

BOOST_AUTO_TEST_CASE(a_fixed_number_of_experts_is_insisted_on) {
  check_contains(refusal("comigs-1g1s", users_with({2, 3})),
                 {"'comigs-1g1s' has 2 experts for every user", "[user.1] experts = 3", "comigs-1gxs"});
  check_contains(refusal("comigs-2s", users_with({1, 2})), {"[user.0] experts = 1"});
  BOOST_CHECK_NO_THROW((void)user_models(find_method("comigs-1gxs"), users_with({4, 3, 1})));
}

BOOST_AUTO_TEST_CASE(what_is_averaged_needs_one_rank_and_alpha) {
  std::vector<config::User> users = users_with({2, 2, 2});
  users[2].lora_rank = 4;
  check_contains(refusal("comigs-1g1s", users),
                 {"'comigs-1g1s'", "user 0 has lora_rank = 8", "user 2 has 4"});
  // Specialists of one's own still share attention.
  check_contains(refusal("comigs-2s", users), {"user 2 has 4"});
  BOOST_CHECK_NO_THROW((void)user_models(find_method("local"), users));
  BOOST_CHECK_NO_THROW((void)user_models(find_method("pretrained"), users));
  users[2].lora_rank = 8;
  users[1].lora_alpha = 32.0;
  check_contains(refusal("fedavg", users), {"lora_alpha = 16", "user 1 has 8, 32"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
