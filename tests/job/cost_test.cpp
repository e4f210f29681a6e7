// What a run takes, reckoned beforehand, against closed forms.
#include "comigs/job/cost.hpp"

#include <boost/test/unit_test.hpp>

#include "comigs/adapter/flops.hpp"
#include "comigs/adapter/footprint.hpp"
#include "comigs/job/micro_batches.hpp"

namespace comigs::job {

namespace {

data::UserShards shards_of(const std::string& name) {
  return {.name = name,
          .train = {.file = name + "/train.bin", .tokens = 1000},
          .validation = {.file = name + "/validation.bin", .tokens = 321},
          .test = {.file = name + "/test.bin", .tokens = 161}};
}

struct Setting {
  model::Architecture architecture = model::gpt2_architecture(2, 16, 2, 1000, 64);
  data::Manifest manifest;
  config::Config config;

  Setting() {
    for (const char* name : {"German", "Dutch", "French"}) manifest.users.push_back(shards_of(name));
    config.users.resize(3);
    for (config::User& user : config.users) {
      user.lora_rank = 4;
      user.batch_sequences = 8;
      user.context_tokens = 32;
      user.local_steps = 10;
    }
    config.run.rounds = 7;
    config.run.train_evaluation_tokens = 200;
    config.method.router_every = 20;
    config.method.router_steps = 3;
  }

  [[nodiscard]] Cost of(const char* name, std::size_t user = 0,
                        const model::Computation& computation = {}) const {
    const federation::Method& method = federation::find_method(name);
    const auto users = federation::user_models(method, config.users);
    return cost({.method = method,
                 .config = config,
                 .users = users,
                 .manifest = manifest,
                 .architecture = architecture,
                 .computation = computation},
                user);
  }
  [[nodiscard]] adapter::UserModel model_of(const char* name, std::size_t user = 0) const {
    return federation::user_models(federation::find_method(name), config.users)[user];
  }
  [[nodiscard]] double flops(const adapter::UserModel& user, adapter::Pass pass, std::int64_t tokens) const {
    return adapter::flops(architecture, user, pass, tokens, 32);
  }
};

// Numbers in the LoRA of one expert and of attention: rank 4 on up and down; on qkv and the projection.
constexpr std::int64_t expert = 2 * 4 * 2 * (16 + 64), attention = 2 * 4 * (16 + 48 + 16 + 16);

}  // namespace

BOOST_FIXTURE_TEST_SUITE(costs, Setting)

BOOST_AUTO_TEST_CASE(steps_and_evaluations_are_counted) {
  const Cost found = of("comigs-1g1s");
  const adapter::UserModel user = model_of("comigs-1g1s");
  // 70 expert steps and, after every 20 of them, 3 router steps.
  BOOST_TEST(found.training_flops == 70 * flops(user, adapter::Pass::experts, 8 * 32) +
                                         9 * flops(user, adapter::Pass::routers, 8 * 32));
  // Every token but a split's first is predicted once, in windows of 32: 7, 10 and 5 of them. Validation and
  // test once more before the last aggregation.
  BOOST_TEST(found.start_flops == flops(user, adapter::Pass::evaluation, (7 + 10 + 5) * 32));
  BOOST_TEST(found.evaluation_flops == flops(user, adapter::Pass::evaluation, (7 * 22 + 15) * 32));
  BOOST_TEST(found.parameters == attention + 2 * expert + 2 * 2 * 16);
}

BOOST_AUTO_TEST_CASE(fewer_evaluations_where_fewer_are_asked_for) {
  config.run.evaluate_every = 3;  // after rounds 3, 6 and 7
  const adapter::UserModel user = model_of("local");
  BOOST_TEST(of("local").evaluation_flops == 3 * flops(user, adapter::Pass::evaluation, 22 * 32));
  config.run.train_evaluation_tokens = 0;  // all 1000: 32 windows
  BOOST_TEST(of("local").start_flops == flops(user, adapter::Pass::evaluation, (32 + 15) * 32));
}

// Of a test text that is everybody's each runs some batches, where all have one model.
BOOST_AUTO_TEST_CASE(users_of_one_model_share_the_work_on_one_text) {
  for (config::User& user : config.users) {
    user.memory = 40.0;  // enough for the whole batch: evaluations run 8 windows at a time
    user.context_tokens = 2;
  }
  config.run.train_evaluation_tokens.reset();
  const auto evaluation = [&](const char* name, std::int64_t windows) {
    return adapter::flops(architecture, model_of(name), adapter::Pass::evaluation, 2 * windows, 2);
  };
  // 160 windows of two tokens of the validation text, 80 of the test text: 10 batches of these.
  const double alone = of("fedavg").evaluation_flops, test = evaluation("fedavg", 80);
  BOOST_TEST(alone == 8 * evaluation("fedavg", 160 + 80));
  for (data::UserShards& user : manifest.users) user.test.sha256 = "ab";
  // After each of seven rounds, not before the last mean. Three users have 4, 3 and 3 batches.
  for (const auto& [user, others] : {std::pair{0u, 6}, {1u, 7}, {2u, 7}})
    BOOST_TEST(alone - of("fedavg", user).evaluation_flops == 7 * test * others / 10,
               boost::test_tools::tolerance(1e-12));
  BOOST_TEST(of("comigs-1g1s").evaluation_flops == 8 * evaluation("comigs-1g1s", 160 + 80));
  manifest.users[2].test.sha256 = "cd";
  BOOST_TEST(alone - of("fedavg").evaluation_flops == 7 * test / 2, boost::test_tools::tolerance(1e-12));
  BOOST_TEST(of("fedavg", 2).evaluation_flops == alone);
  config.users[1].memory = 41.0;
  BOOST_TEST(of("fedavg").evaluation_flops == alone);
}

BOOST_AUTO_TEST_CASE(a_batch_is_not_cut_up) {
  const double alone = of("fedavg").evaluation_flops;
  for (data::UserShards& user : manifest.users) user.test.sha256 = "ab";  // 5 windows
  BOOST_TEST(of("fedavg").evaluation_flops == alone);
  BOOST_TEST(alone - of("fedavg", 1).evaluation_flops ==
                 7 * flops(model_of("fedavg"), adapter::Pass::evaluation, 5 * 32),
             boost::test_tools::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(bytes_follow_the_rule) {
  BOOST_TEST(of("local").bytes == 0);
  BOOST_TEST(of("comigs-1g1s").bytes == 7 * 4 * (attention + expert));
  BOOST_TEST(of("comigs-2s").bytes == 7 * 4 * attention);
  BOOST_TEST(of("fedavg").bytes == 7 * 4 * (attention + 2 * expert));
  BOOST_TEST(of("centralized").bytes == 7 * 10 * 4 * (attention + 2 * expert));
  // Renewed in rounds 5 and 7, in which everything is sent twice.
  BOOST_TEST(of("pcl").bytes == 9 * 4 * (attention + 2 * expert));
  config.method.mixing = config::Mixing::renewals;  // and in no other
  BOOST_TEST(of("pcl").bytes == 4 * 4 * (attention + 2 * expert));
  config.method.mixing = config::Mixing::every_round;
  BOOST_TEST(of("fdlora").bytes == of("fedavg").bytes);
  BOOST_TEST(of("fdlora").training_flops > of("fedavg").training_flops);
  config.run.communication = config::Precision::bf16;
  BOOST_TEST(of("comigs-1g1s").bytes == 7 * 2 * (attention + expert));
}

BOOST_AUTO_TEST_CASE(bytes_of_different_ranks) {
  config.users[1].lora_rank = 8;
  config.users[2].lora_rank = 2;
  const std::int64_t all = (attention + expert) / 4;  // of rank 1
  for (const std::size_t user : {0, 1, 2}) BOOST_TEST(of("hetlora", user).bytes == 7 * 4 * 8 * all);
  // FlexLoRA: a user's own factors, and at the largest rank those that it decomposes. Of 8 LoRA, in the order
  // attention (qkv and projection of layers 0 and 1), then up and down of both layers, user 2 has numbers 2
  // and 5: qkv of layer 1 and down of layer 0.
  BOOST_TEST(of("flexlora", 2).bytes == 7 * 4 * (2 * all + 8 * ((16 + 48) + (64 + 16))));
  // Attention of rank 2 for all is a mean beside the padded experts.
  for (config::User& one : config.users) one.attention_rank = 2;
  for (const std::size_t user : {0, 1, 2})
    BOOST_TEST(of("hetlora", user).bytes == 7 * 4 * (8 * expert / 4 + 2 * attention / 4));
}

BOOST_AUTO_TEST_CASE(users_without_others_send_nothing) {
  config.users[0].experts = 3;
  // Expert 2 of user 0 has no other holder.
  BOOST_TEST(of("fedavg").bytes == 7 * 4 * (attention + 2 * expert));
  BOOST_TEST(of("comigs-1gxs").bytes == 7 * 4 * (attention + expert));
}

BOOST_AUTO_TEST_CASE(memory_has_the_largest_of_what_is_alive_at_a_time) {
  config.users[0].batch_sequences = 32;
  const adapter::UserModel user = model_of("comigs-1g1s");
  const adapter::Footprint step = adapter::footprint(architecture, user, {}, 32 * 32);
  const PeakMemory memory = of("comigs-1g1s").memory;
  BOOST_TEST(memory.base == step.base);
  BOOST_TEST(memory.training == 16 * (attention + 2 * expert + 2 * 2 * 16));
  BOOST_TEST(memory.activations == step.activations);
  BOOST_TEST(memory.total() == memory.base + memory.training + memory.activations + memory.program);
  // Micro-batches of one sequence need less than an evaluation of ten windows at a time.
  config.users[0].micro_batch_sequences = 1;
  BOOST_TEST(of("comigs-1g1s").memory.activations ==
             adapter::evaluation_activations(architecture, user, {}, 10 * 32));
  BOOST_TEST(of("comigs-1g1s").micro_batch_sequences == 1);
  // A budget holds for both.
  config.users[0].memory =
      static_cast<double>(adapter::footprint(architecture, user, {}, 32).total()) / gib * 1.001;
  const PeakMemory within = of("comigs-1g1s").memory;
  BOOST_TEST(static_cast<double>(within.total() - within.program) <= config.users[0].memory * gib);
}

BOOST_AUTO_TEST_CASE(what_is_clustered_is_read_and_kept_before_the_first_round) {
  for (data::UserShards& user : manifest.users) {
    user.train.examples = {.file = {}, .count = 9000, .longest = 33};
    user.validation.examples = {.file = {}, .count = 20, .longest = 33};
    user.test.examples = {.file = {}, .count = 30, .longest = 33};
  }
  const Cost without = of("mop", 1), on_gpu = of("mop", 1, {.on_gpu = true});
  config.method.gate_targets = config::GateTargets::clusters;
  const adapter::UserModel user = model_of("mop");
  const Cost cost = of("mop", 1);
  BOOST_TEST(cost.start_flops ==
             without.start_flops + flops(user, adapter::Pass::warmup, std::int64_t{9000} * 32));
  // [examples, width], and 32 sequences that are run to make them.
  BOOST_TEST(cost.memory.activations ==
             9000 * 16 * 4 + adapter::evaluation_activations(architecture, user, {}, 32 * 32, 32));
  BOOST_TEST(cost.memory.activations > without.memory.activations);
  BOOST_TEST(of("mop", 1, {.on_gpu = true}).memory.total() == on_gpu.memory.total());  // the host has them
  BOOST_TEST(of("mop", 1, {.on_gpu = true}).host_memory > on_gpu.host_memory);
  config.method.train_on = config::TrainOn::train_and_validation;
  BOOST_TEST(of("mop", 1).memory.activations == cost.memory.activations + 20 * 16 * 4);
  config.users[1].train_share = 0.5;
  BOOST_TEST(of("mop", 1).memory.activations == cost.memory.activations - 4480 * 16 * 4);
  config.method.gate_warmup_rounds = 0;
  const Cost none = of("mop", 1);
  config.method.gate_targets = config::GateTargets::categories;
  BOOST_TEST(none.start_flops == of("mop", 1).start_flops);
}

BOOST_AUTO_TEST_CASE(a_gpu_has_what_its_recorded_steps_keep_and_an_evaluation) {
  config.users[0].batch_sequences = 32;
  const adapter::UserModel user = model_of("comigs-1g1s");
  const adapter::Footprint step = adapter::footprint(architecture, user, {}, 32 * 32);
  const Cost cost = of("comigs-1g1s", 0, {.on_gpu = true});
  BOOST_TEST(cost.memory.activations ==
             step.activations + adapter::evaluation_activations(architecture, user, {}, 10 * 32));
  // PCL runs a batch through every user's model.
  const adapter::UserModel one = model_of("pcl");
  BOOST_TEST(of("pcl", 0, {.on_gpu = true}).memory.activations ==
             adapter::footprint(architecture, one, {}, 32 * 32).activations +
                 adapter::evaluation_activations(architecture, one, {}, 32 * 32));
  // On the host libraries, the base, texts, a copy for checkpoints, and on rank 0 all users' parameters.
  const std::int64_t all = 4 * 3 * (attention + 2 * expert + 2 * 2 * 16);
  const Cost other = of("comigs-1g1s", 1, {.on_gpu = true});
  BOOST_TEST(cost.host_memory - other.host_memory == all);
  BOOST_TEST(memory_of_node({cost, other}, true) == cost.host_memory + other.host_memory - cost.memory.base);
}

BOOST_AUTO_TEST_CASE(a_node_has_the_base_and_the_libraries_once) {
  std::vector<Cost> all = {of("comigs-1g1s", 0), of("comigs-1g1s", 1), of("comigs-1g1s", 2)};
  const std::int64_t one = memory_of_node({all[0]}, false), three = memory_of_node(all, false);
  BOOST_TEST(one == all[0].memory.total());
  BOOST_TEST(three > one);
  BOOST_TEST(three < one + 2 * (all[0].memory.total() - all[0].memory.base));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
