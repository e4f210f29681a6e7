// Every device there is makes the numbers that the host makes in float32.
#include "comigs/model/device.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include "comigs/adapter/losses.hpp"
#include "comigs/base/error.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "comigs/model/recording.hpp"
#include "support/card.hpp"
#include "support/messages.hpp"
#include "support/random_parameters.hpp"
#include "support/temporary_folder.hpp"
#include "support/tensors.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

using test::Card;

namespace {

struct Step {
  at::Tensor loss, gradients;
};

Step step(const test::Weights& weights, const Architecture& architecture, const UserModel& user_model,
          const at::Device& device) {
  const auto base =
      make_base_model(architecture, [&](const WeightSpec& spec) { return weights.at(spec.name).to(device); });
  Parameters parameters(architecture, user_model, device);
  parameters.values().copy_(test::random_parameters(architecture, user_model, 3, 0.05).values());
  const at::Tensor tokens =
      at::arange(40, at::kLong).remainder(architecture.vocabulary).view({4, 10}).to(device);
  const Forward forward = adapter::forward(*base, tokens, parameters);
  at::Tensor loss = cross_entropy(forward.hidden, base->head(), tokens.view(-1));
  if (user_model.routed())
    loss = loss + load_balancing_loss(forward.routing, balancing_weights(user_model.experts, 0.5));
  loss.backward();
  return {loss.detach().to(at::kCPU), parameters.gradients().to(at::kCPU)};
}

}  // namespace

BOOST_TEST_GLOBAL_FIXTURE(Card);

BOOST_AUTO_TEST_SUITE(device)

BOOST_AUTO_TEST_CASE(steps_of_a_card_are_the_host_s, *boost::unit_test::precondition(test::has_card)) {
  const Architecture architecture = test::tiny_architecture();
  const test::Weights weights = test::random_weights(architecture);
  for (const std::int64_t experts : {1, 2, 4})
    for (const std::int64_t top_k : {1, 2}) {
      const UserModel user_model{.experts = experts, .lora_rank = 4, .top_k = top_k};
      const Step host = step(weights, architecture, user_model, at::kCPU);
      const Step card = step(weights, architecture, user_model, test::card);
      BOOST_TEST(test::close(card.loss, host.loss, 1e-5));
      BOOST_TEST(test::close(card.gradients, host.gradients, 1e-3));
    }
}

BOOST_DATA_TEST_CASE(recordings_read_and_write_where_they_were_recorded, test::devices(), device) {
  const at::Tensor in = at::zeros({1000}, device), sum = at::zeros({1000}, device);
  at::Tensor kept, square;
  RecordingMemory memory(device);
  Recording doubled(memory), squared(memory);
  for (int call = 1; call <= 5; ++call) {
    in.fill_(call);
    doubled.run([&] {
      const at::Tensor passing = in * 2;
      kept = passing + 1;
      sum.add_(passing);
    });
    BOOST_TEST(kept.sum().item<float>() == 1000.0f * static_cast<float>(2 * call + 1));
    squared.run([&] {
      square = in * in;
      sum.add_(square);
    });
    BOOST_TEST(square.sum().item<float>() == 1000.0f * static_cast<float>(call * call));
  }
  BOOST_TEST(sum.sum().item<float>() == 1000.0f * (2 * 15 + 55));
}

namespace {

// A machine as `why_no_gpu` finds it: device files, and what the driver says of itself.
struct Machine : TemporaryFolder {
  void add_device(const std::string& name) const {
    std::filesystem::create_directories(folder / "dev");
    test::write_text(folder / "dev" / name, "");
  }
  void add_driver(const std::string& words) const {
    std::filesystem::create_directories(folder / "proc/driver/nvidia");
    test::write_text(folder / "proc/driver/nvidia/version", words);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_CASE(a_machine_without_a_card_needs_no_reason, Machine) {
  BOOST_TEST(why_no_gpu(folder).empty());
  add_device("nvidiactl");  // what a container may have without any
  add_device("nvidia-uvm");
  BOOST_TEST(why_no_gpu(folder).empty());
}

BOOST_FIXTURE_TEST_CASE(a_card_that_is_not_visible_has_one, Machine) {
  add_device("nvidia0");
  if (why_no_gpu(folder).starts_with("this comigs was built without CUDA")) return;
  test::check_contains(why_no_gpu(folder), {"the driver shows none to this process"});
  add_driver(
      "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13\nGCC version:  gcc 12.2.0\n");
  test::check_contains(why_no_gpu(folder), {"driver 470.57.02 is too old: CUDA", "or newer"});
  add_driver("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  999.65.06  Release Build\n");
  test::check_contains(why_no_gpu(folder), {"the driver 999.65.06 shows none to this process"});
}

// On a GPU such work cannot be recorded.
BOOST_DATA_TEST_CASE(work_that_waits_is_done_all_the_same, test::devices(), device) {
  const at::Tensor in = at::zeros({1000}, device);
  RecordingMemory memory(device);
  Recording recording(memory);
  float seen = 0.0f;
  for (int call = 1; call <= 4; ++call) {
    in.fill_(call);
    recording.run([&] { seen = in.sum().item<float>(); });
    BOOST_TEST(seen == 1000.0f * static_cast<float>(call));
  }
}

BOOST_DATA_TEST_CASE(what_work_throws_comes_through, test::devices(), device) {
  RecordingMemory memory(device);
  Recording recording(memory);
  int calls = 0;
  BOOST_CHECK_THROW(recording.run([] { throw NumericError("not finite"); }), NumericError);
  recording.run([&] { ++calls; });
  BOOST_TEST(calls == 1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
