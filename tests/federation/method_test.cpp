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

// What the method says against the configuration; empty: nothing.
std::string refusal(const char* method, const config::Config& config) {
  try {
    check_method(find_method(method), config);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return {};
}

std::string refusal(const char* method, const std::vector<config::User>& users) {
  config::Config config;
  config.users = users;
  return refusal(method, config);
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
    const bool routed = method.gate == adapter::Gate::top_k || method.gate == adapter::Gate::sequence;
    BOOST_TEST((routed || method.router_training == train::RouterTraining::none),
               method.name << " trains routers that it does not have");
    BOOST_TEST((!routed || method.router_training != train::RouterTraining::none),
               method.name << " never trains its routers");
    BOOST_TEST((method.gate != adapter::Gate::none || method.experts == 0), method.name);
    BOOST_TEST((method.router_training != train::RouterTraining::joint ||
                method.router_data == RouterData::training),
               method.name);
  }
}

BOOST_AUTO_TEST_CASE(rows_are_those_of_the_paper) {
  // What is shared, from docs/methods.md: experts, attention, and the data that routers see.
  struct Row {
    Sharing experts;
    bool attention;
    RouterData data;
  };
  using enum RouterData;
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
  BOOST_TEST((find_method("fedavg").gate == adapter::Gate::equal));
}

BOOST_AUTO_TEST_CASE(a_mistyped_name_gets_a_suggestion_and_the_list) {
  const std::string message = test::message_of<ConfigError>([] { (void)find_method("comigs-1g1"); });
  check_contains(message, {"unknown method 'comigs-1g1'", "did you mean 'comigs-1g1s'?",
                           "known: pretrained, centralized, local, fedavg"});
  const std::string far = test::message_of<ConfigError>([] { (void)find_method("quantum-annealing"); });
  BOOST_TEST(far.find("did you mean") == std::string::npos);
  check_contains(far, {"comigs-1gxs"});
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(models_of_users)

BOOST_AUTO_TEST_CASE(generalists_come_from_the_sharing) {
  const auto generalists = [](const char* method, std::int64_t experts) {
    return user_models(find_method(method), users_with({experts, experts})).front().generalists.size();
  };
  BOOST_TEST(generalists("comigs-1g1s", 2) == 1u);
  BOOST_TEST(generalists("comigs-2g", 2) == 2u);
  BOOST_TEST(generalists("comigs-2s", 2) == 0u);
  BOOST_TEST(generalists("comigs-1gxs", 4) == 1u);
  BOOST_TEST(generalists("comigs-1gxs", 1) == 1u);
  BOOST_TEST(generalists("fedavg", 3) == 3u);
  BOOST_TEST(generalists("local", 3) == 0u);
}

BOOST_AUTO_TEST_CASE(settings_of_each_user_pass_through) {
  std::vector<config::User> users = users_with({4, 2, 1, 1});
  users[0].top_k = 3;
  const std::vector<adapter::UserModel> models = user_models(find_method("comigs-1gxs"), users);
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
  const std::vector<adapter::UserModel> models = user_models(find_method("pretrained"), users_with({2, 4}));
  for (const adapter::UserModel& model : models) {
    BOOST_TEST(model.experts == 0);
    BOOST_TEST(model.generalists.empty());
    BOOST_TEST((model.gate == adapter::Gate::none));
    BOOST_TEST(!model.shared_attention);
  }
}

BOOST_AUTO_TEST_CASE(a_fixed_number_of_experts_is_insisted_on) {
  check_contains(refusal("comigs-1g1s", users_with({2, 3})),
                 {"[user.1] experts = 3", "'comigs-1g1s' has 2 for every user", "comigs-1gxs"});
  check_contains(refusal("comigs-2s", users_with({1, 2})), {"[user.0] experts = 1"});
  BOOST_TEST(refusal("comigs-1gxs", users_with({4, 3, 1})).empty());
}

BOOST_AUTO_TEST_CASE(nobody_is_asked_for_more_experts_than_anybody_has) {
  const auto with = [](const std::vector<std::int64_t>& experts, std::int64_t top_k) {
    std::vector<config::User> users = users_with(experts);
    for (config::User& user : users) user.top_k = top_k;
    return users;
  };
  check_contains(refusal("comigs-1g1s", with({2, 2}, 5)),
                 {"[user.0] top_k = 5", "more than 2 experts", "at most 2"});
  check_contains(refusal("comigs-1gxs", with({1, 1}, 3)), {"top_k = 3", "more than 1 expert;"});
  BOOST_TEST(refusal("comigs-1gxs", with({1, 1}, 2)).empty());  // as it is unsaid
  BOOST_TEST(refusal("comigs-1gxs", with({4, 3, 1}, 4)).empty());
  check_contains(refusal("comigs-1gxs", with({4, 3, 1}, 5)), {"[user.0] top_k = 5", "at most 4"});
  const auto told = [&](const char* method, const std::vector<config::User>& users) {
    return limits_of_top_k(find_method(method), users);
  };
  check_contains(told("comigs-1gxs", with({4, 3, 1}, 4)), {"top_k", "user 1, 2"});
  BOOST_TEST(told("comigs-1gxs", with({4, 3, 1}, 1)).empty());
  BOOST_TEST(told("comigs-1gxs", with({4, 3, 1}, 2)).empty());
  BOOST_TEST(told("fedavg", with({2, 2}, 5)).empty());
}

BOOST_AUTO_TEST_CASE(what_is_averaged_needs_one_rank_and_alpha) {
  std::vector<config::User> users = users_with({2, 2, 2});
  users[2].lora_rank = 4;
  check_contains(refusal("comigs-1g1s", users),
                 {"[user.2] lora_rank = 4", "user 0 has 8", "'comigs-1g1s'", "hetlora"});
  // Specialists of one's own still share attention.
  check_contains(refusal("comigs-2s", users), {"[user.2] lora_rank = 4"});
  for (const char* method : {"local", "pretrained", "hetlora", "flexlora"})
    BOOST_TEST(refusal(method, users).empty(), method);
  users[2].lora_rank = 8;
  users[1].lora_alpha = 32.0;
  check_contains(refusal("fedavg", users), {"[user.1]", "lora_alpha = 32", "user 0 has 8, 16"});
}

BOOST_AUTO_TEST_CASE(one_model_for_all_needs_one_shape_and_equal_steps) {
  std::vector<config::User> users = users_with({2, 2});
  for (const char* method : {"centralized", "pcl"}) BOOST_TEST(refusal(method, users).empty(), method);
  users[1].batch_sequences = 8;
  check_contains(refusal("centralized", users),
                 {"[user.1]", "batch_sequences = 8", "'centralized'", "alike"});
  BOOST_TEST(refusal("pcl", users).empty());
  users[1].experts = 3;
  check_contains(refusal("pcl", users), {"[user.1] experts = 3", "user 0 has experts = 2", "'pcl'"});
}

BOOST_AUTO_TEST_CASE(generalists_are_chosen_where_there_is_a_choice) {
  std::vector<config::User> users = users_with({2, 3});
  users[1].generalists = {0, 1};
  check_contains(refusal("comigs-1gxs", users), {"[user.1] generalists = 0+1", "comigs-mgxs"});
  BOOST_TEST(refusal("comigs-mgxs", users).empty());
  const auto models = user_models(find_method("comigs-mgxs"), users);
  BOOST_TEST((models[1].generalists == std::vector<std::int64_t>{0, 1}));
  users[0].generalists = {0, 1, 2};
  check_contains(refusal("comigs-mgxs", users), {"[user.0]", "3 generalists", "experts = 2"});
}

BOOST_AUTO_TEST_CASE(attention_of_a_rank_of_its_own_is_alike_where_it_is_averaged) {
  std::vector<config::User> users = users_with({2, 2, 2});
  users[1].attention_rank = 4;
  check_contains(refusal("hetlora", users), {"[user.1] attention_rank = 4", "user 0 has 0", "'hetlora'"});
  BOOST_TEST(refusal("local", users).empty());
  for (config::User& user : users) user.attention_rank = 4;
  for (const char* method : {"hetlora", "flexlora", "pcl", "fedavg", "comigs-1g1s"})
    BOOST_TEST(refusal(method, users).empty(), method);
  users[2].lora_alpha = 8;
  check_contains(refusal("flexlora", users), {"[user.2] lora_alpha = 8", "attention_rank"});
  BOOST_TEST(user_models(find_method("fedavg"), users)[0].rank_of_attention() == 4);
  BOOST_TEST(user_models(find_method("fedavg"), users_with({2}))[0].rank_of_attention() == 8);
}

BOOST_AUTO_TEST_CASE(prompts_that_are_averaged_are_alike) {
  std::vector<config::User> users = users_with({2, 2});
  users[1].prompt_tokens = 4;
  check_contains(refusal("mop-equal", users),
                 {"[user.1] prompt_tokens = 4", "user 0 has prompt_tokens = 10"});
  BOOST_TEST(refusal("prompt-local", users_with({1, 1})).empty());
  users[1].prompt_tokens = 10;
  users[1].prompt_layer = 1;
  check_contains(refusal("mop-equal", users), {"prompt_layer = 1", "prompt_layer = auto"});
  // Ranks and attention are nothing to them.
  users[1] = users[0];
  users[1].lora_rank = 4;
  users[1].attention_rank = 2;
  BOOST_TEST(refusal("mop-equal", users).empty());
  users[1].experts = 3;
  check_contains(refusal("fedprompt", users_with({3, 3})), {"'fedprompt' has 1", "'mop-equal' takes any"});
}

BOOST_AUTO_TEST_CASE(attention_of_a_user_s_own_needs_a_rule_by_slices) {
  std::vector<config::User> users = users_with({2, 2});
  users[1].attention_sharing = config::AttentionSharing::own;
  for (const char* method : {"pcl", "hetlora", "flexlora", "centralized"})
    check_contains(refusal(method, users), {"[user.1] attention_sharing = own", method});
  for (const char* method : {"comigs-2s", "local", "local-moe", "fedavg"})
    BOOST_TEST(refusal(method, users).empty(), method);
  const std::vector<adapter::UserModel> models = user_models(find_method("comigs-2s"), users);
  BOOST_TEST(models[0].shared_attention);
  BOOST_TEST(!models[1].shared_attention);
}

BOOST_AUTO_TEST_CASE(options_without_effect_are_refused) {
  config::Config config;
  config.users = users_with({2});
  config.method.carry_phase_gradients = true;
  const auto message = [&](const char* method) { return refusal(method, config); };
  check_contains(message("fedavg"), {"carry_phase_gradients", "'fedavg'", "no router phase"});
  check_contains(message("fedavg-moe"), {"carry_phase_gradients"});
  BOOST_TEST(message("comigs-2s").empty());
  config.method.carry_phase_gradients = false;
  config.method.averaging = config::Averaging::tokens;
  check_contains(message("pcl"), {"averaging = tokens", "'pcl'"});
  check_contains(message("local"), {"averaging = tokens", "averages nothing"});
  BOOST_TEST(message("fedavg").empty());
  config.method.averaging = config::Averaging::uniform;
  config.method.pruning_strength = 0.5;
  check_contains(message("flexlora"), {"pruning_strength = 0.5", "'flexlora'", "hetlora"});
  BOOST_TEST(message("hetlora").empty());
  config.method.rank_regulariser = 0.5;  // of which the strength says what it is taken of
  BOOST_TEST(message("flexlora").empty());
  config.method.rank_regulariser = {};
  config.method.pruning_strength = config::Method{}.pruning_strength;
  config.method.mixing = config::Mixing::renewals;
  check_contains(message("fedavg"), {"mixing = renewals", "'fedavg'", "'pcl'"});
  BOOST_TEST(message("pcl").empty());
  config.method.mixing = config::Mixing::every_round;
  config.run.communication = config::Precision::bf16;
  check_contains(message("local"), {"communication = bf16", "'local' sends nothing"});
  check_contains(message("pcl"), {"communication = bf16", "'pcl' sends more than sums"});
  check_contains(message("flexlora"), {"communication = bf16"});
  for (const char* method : {"fedavg", "comigs-1g1s", "centralized"}) BOOST_TEST(message(method).empty());
  config.run.communication = config::Precision::float32;
  config.users[0].experts = 4;
  check_contains(message("hetlora"), {"[user.0] experts = 4", "'hetlora' has 1"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::federation
