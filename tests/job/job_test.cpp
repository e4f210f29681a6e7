// A job is settled by its arguments, its data set and its base model alone, or refused.
#include "comigs/job/job.hpp"

#include <boost/test/unit_test.hpp>

#include <array>

#include "comigs/adapter/footprint.hpp"
#include "comigs/base/error.hpp"
#include "job/job_folders.hpp"
#include "support/messages.hpp"

namespace comigs::job {

namespace {

using test::check_contains;
using test::message_of;

struct Folders : test::JobFolders {
  [[nodiscard]] Job read(const std::vector<std::string>& more) const { return read_job(with(more), 2); }
  [[nodiscard]] std::string refusal(const std::vector<std::string>& more) const {
    return message_of<ConfigError>([&] { (void)read(more); });
  }
  // Of rank 4, beside one projection; `draw` tells it from others.
  [[nodiscard]] std::string adapter(std::uint32_t draw) const {
    const std::filesystem::path place = folder / "adapter";
    std::filesystem::create_directories(place);
    test::write_text(place / "adapter_config.json", R"({"peft_type": "LORA", "r": 4})");
    test::write_weights_file(place / "adapter_model.safetensors",
                             {{"h.0.mlp.c_fc.lora_A.weight", test::normal({4, 16}, draw)},
                              {"h.0.mlp.c_fc.lora_B.weight", test::normal({64, 4}, draw + 1)}},
                             "base_model.model.transformer.");
    return place.string();
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(jobs, Folders)

BOOST_AUTO_TEST_CASE(what_a_method_and_options_give_each_user) {
  const Job job = read({"--method", "comigs-1gxs", "--experts", "3,1", "--lora-rank", "2"});
  BOOST_TEST(job.method->name == "comigs-1gxs");
  BOOST_TEST(job.manifest.name == "sample");
  BOOST_TEST(job.architecture.layers == 2);
  BOOST_TEST_REQUIRE(job.users.size() == 2u);
  BOOST_TEST(job.users[0].experts == 3);
  BOOST_TEST(job.users[1].experts == 1);
  BOOST_TEST(job.users[1].lora_rank == 2);
  BOOST_TEST(job.remark.empty());
  BOOST_TEST(job.config.run.rounds > 0);
}

BOOST_AUTO_TEST_CASE(where_nobody_says_how_many_there_are_as_many_users_as_the_data_has) {
  BOOST_TEST(read_job(with({"--method", "local"})).users.size() == 2u);
}

BOOST_AUTO_TEST_CASE(one_rank_a_user) {
  check_contains(message_of<ConfigError>([&] {
                   (void)read_job(with({"--method", "local"}), 3);
                 }),
                 {"3 MPI ranks for the 2 users", "German, Dutch", "mpirun -n 2"});
}

BOOST_AUTO_TEST_CASE(what_trains_nothing_has_no_rounds) {
  const Job job = read({"--method", "pretrained", "--rounds", "7"});
  BOOST_TEST(job.config.run.rounds == 0);
  BOOST_TEST(job.users[0].experts == 0);
}

BOOST_AUTO_TEST_CASE(automatic_experts_become_a_number) {
  const Job job = read({"--method", "comigs-1gxs", "--experts", "auto,2", "--step-budget", "1.5"});
  for (std::size_t user : {0u, 1u}) BOOST_TEST(job.config.users[user].experts == job.users[user].experts);
  BOOST_TEST(job.users[0].experts > 1);
  BOOST_TEST(job.users[1].experts == 2);
}

BOOST_AUTO_TEST_CASE(options_without_effect_are_remarked_on) {
  check_contains(read({"--method", "local", "--router-every", "7"}).remark, {"router-every"});
}

BOOST_AUTO_TEST_CASE(the_adapter_that_users_begin_as_stays_the_one_that_the_job_was_read_with) {
  BOOST_TEST(!open_init_adapter(read({"--method", "local"})).has_value());
  const Job job = read({"--method", "local", "--init-adapter", adapter(1)});
  BOOST_TEST_REQUIRE(open_init_adapter(job).has_value());
  BOOST_TEST(open_init_adapter(job)->digest() == job.init_adapter_digest);
  (void)adapter(3);
  check_contains(message_of<DataError>([&] { (void)open_init_adapter(job); }), {"adapter", "changed"});
}

BOOST_AUTO_TEST_CASE(adapters_that_nobody_or_not_everybody_can_begin_as) {
  check_contains(refusal({"--method", "pretrained", "--init-adapter", adapter(1)}),
                 {"init_adapter", "'pretrained' trains nothing that could begin as it"});
  check_contains(refusal({"--method", "fedprompt", "--prompt-tokens", "2", "--init-adapter", adapter(1)}),
                 {"init_adapter", "'fedprompt' trains nothing that could begin as it"});
  check_contains(refusal({"--method", "local", "--lora-rank", "4,3", "--init-adapter", adapter(1)}),
                 {"adapter_model.safetensors: 'transformer.h.0.mlp.c_fc' has rank 4",
                  "user Dutch ([user.1] lora_rank) has rank 3"});
}

BOOST_AUTO_TEST_CASE(what_does_not_go_together_is_refused) {
  check_contains(refusal({"--method", "nonsense"}), {"nonsense"});
  check_contains(refusal({"--method", "comigs-1g1s", "--experts", "3"}), {"experts", "comigs-1g1s"});
  check_contains(refusal({"--method", "local", "--user.1.context-tokens", "65"}),
                 {"context_tokens = 65", "64 positions"});
  check_contains(message_of<DataError>([&] {
                   (void)read({"--method", "local", "--train-tokens", "5"});
                 }),
                 {"German", "train_tokens = 5"});
}

BOOST_AUTO_TEST_CASE(micro_batches_are_those_that_fit_the_users_asked_for) {
  const std::array<std::size_t, 1> first = {0}, second = {1};
  const Job job = read({"--method", "local", "--batch-sequences", "12", "--user.1.memory", "0.00001"});
  BOOST_TEST(with_micro_batches(job, first, at::kCPU).users[0].sequences_at_a_time() == 12);
  // Whoever asks, it is the first user with too little who is named.
  check_contains(message_of<ConfigError>([&] { (void)with_micro_batches(job, second, at::kCPU); }),
                 {"[user.1] memory"});
  const Job two = read({"--method", "local", "--batch-sequences", "12", "--memory", "0.00001"});
  check_contains(message_of<ConfigError>([&] { (void)with_micro_batches(two, second, at::kCPU); }),
                 {"[user.0] memory"});
  // Room for 6 sequences, to the byte and a little.
  const double room =
      static_cast<double>(adapter::footprint(job.architecture, job.users[1], {}, 6 * 32).total()) / 0x1p30;
  const Job fits = read({"--method", "local", "--batch-sequences", "12", "--user.1.memory",
                         fmt::format("{:.12f}", room + 1e-9)});
  const config::Config settled = with_micro_batches(fits, second, at::kCPU);
  BOOST_TEST(settled.users[1].sequences_at_a_time() == 6);
  BOOST_TEST(settled.users[0].sequences_at_a_time() == 12);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
