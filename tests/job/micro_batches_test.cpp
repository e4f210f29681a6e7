// Micro-batches are as large as a user's memory lets them be.
#include "comigs/job/micro_batches.hpp"

#include <boost/test/unit_test.hpp>

#include <utility>
#include <vector>

#include "comigs/adapter/footprint.hpp"
#include "comigs/base/error.hpp"
#include "support/messages.hpp"

namespace comigs::job {

using test::check_contains;
using test::message_of;

BOOST_AUTO_TEST_SUITE(micro_batches)

BOOST_AUTO_TEST_CASE(memory_makes_micro_batches_smaller) {
  const at::Device cpu(at::kCPU);
  const adapter::UserModel user_model;
  const model::Architecture architecture = model::gpt2_architecture(2, 16, 2, 1000, 64);
  config::Config config;
  config.users.resize(2);
  config::User& user = config.users[1];
  user.context_tokens = 64;
  user.batch_sequences = 12;
  const auto sequences = [&] { return micro_batch_sequences(config, 1, architecture, user_model, cpu); };
  const auto gib_of = [&](std::int64_t count) {
    const adapter::Footprint taken =
        adapter::footprint(architecture, user_model, {}, count * user.context_tokens);
    return static_cast<double>(taken.total()) / (1 << 30);
  };
  BOOST_TEST(sequences() == 12);
  user.micro_batch_sequences = 5;
  BOOST_TEST(sequences() == 5);
  user.micro_batch_sequences = 0;
  // Parts of 12, 6, 4, 3, 3, 2 ... sequences: the largest that fits.
  for (const auto& [room, expected] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {12, 12}, {11, 6}, {6, 6}, {5, 4}, {2, 2}, {1, 1}}) {
    user.memory = gib_of(room) * (1 + 1e-9);
    BOOST_TEST(sequences() == expected, "room for " << room << ": " << sequences());
  }
  user.memory = gib_of(1) / 2;
  check_contains(message_of<ConfigError>([&] { (void)sequences(); }),
                 {"[user.1] memory", "one sequence of 64 tokens takes", "smaller context_tokens"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
