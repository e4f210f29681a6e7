// The text of the device's kernels by threads that really run side by side, for the thread sanitizer, with
// which this is built: where two of them meet in memory without a phase in between it ends the test. Beside
// that the bits must be those of one thread after the other.
#include <boost/test/unit_test.hpp>

#include <vector>

#include "cross_entropy_block.hpp"
#include "device_mixture.hpp"
#include "gate_block.hpp"
#include "thread_block.hpp"

namespace comigs::kernels {

BOOST_AUTO_TEST_SUITE(races)

// Groups that are not full, two windows of ranks.
BOOST_AUTO_TEST_CASE(the_mixture_by_lanes) {
  for (const Activation activation : activations) {
    const Problem<float> problem({12, 36, 2, 9, activation}, 2);
    check_same_bits(device<ByLanes<true>>(problem, OsThreads()),
                    device<ByLanes<true>>(problem, Order::forwards));
  }
}

BOOST_AUTO_TEST_CASE(the_mixture_by_tensor_cores) {
  for (const Activation activation : activations) {
    const Problem<Bfloat16> problem({12, 36, 2, 9, activation}, 2);
    check_same_bits(device<ByTensorCores<2>>(problem, OsThreads()),
                    device<ByTensorCores<2>>(problem, Order::forwards));
  }
}

// One tile after the other in the same memory.
BOOST_AUTO_TEST_CASE(parts_of_two_tiles) {
  for (const Activation activation : activations) {
    const std::int64_t tokens = activation == Activation::silu_gated ? 70 : 135;
    const Problem<float> lanes({tokens, 36, 1, 2, activation}, 1);
    check_same_bits(device<ByLanes<true>>(lanes, OsThreads(), 1),
                    device<ByLanes<true>>(lanes, Order::forwards, 1));
    const Problem<Bfloat16> tensors({tokens, 36, 1, 2, activation}, 1);
    check_same_bits(device<ByTensorCores<1>>(tensors, OsThreads(), 1),
                    device<ByTensorCores<1>>(tensors, Order::forwards, 1));
  }
}

BOOST_AUTO_TEST_CASE(cross_entropy) {
  constexpr int threads = 128;
  std::vector<float> logits(333), loss(1);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = 0.01f * static_cast<float>(i * i % 307);
  const std::vector<std::int64_t> target = {41};
  const auto gradient_by = [&](auto how) {
    std::vector<float> row = logits;
    const LogitRows<float> rows{1, 333, 333, row.data(), target.data(), loss.data(), true};
    run_block<threads>(threads / warp_lanes, how, [&](auto& block) { cross_entropy_row(block, rows, 0); });
    return row;
  };
  BOOST_TEST((gradient_by(OsThreads()) == gradient_by(Order::forwards)));
}

BOOST_AUTO_TEST_CASE(the_gates_load) {
  constexpr int threads = 64;
  const GateShape shape{.tokens = 200, .experts = 3};
  std::vector<float> values(600);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.001f * static_cast<float>(i);
  std::vector<float> means(3);
  run_block<threads>(2 * threads, OsThreads(),
                     [&](auto& block) { mean_over_tokens(block, shape, 1, values.data(), means.data()); });
  BOOST_TEST(means[1] == 59.9f / 200.0f, boost::test_tools::tolerance(1e-6f));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
