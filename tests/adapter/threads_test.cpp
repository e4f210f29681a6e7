// Several threads make the same numbers as one: what they divide among them, and what they add.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <boost/test/unit_test.hpp>

#include <mutex>
#include <set>
#include <thread>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/tensors.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

struct KeptThreads {
  ~KeptThreads() { at::set_num_threads(before); }
  int before = at::get_num_threads();
};

// Wide enough for several blocks of columns, and more tokens than a thread takes of a gate at least.
constexpr std::int64_t n = 5000, width = 24, inner = 200, experts = 3, rank = 5, vocabulary = 50;

// Small enough that logits are of order one: of large ones that are nearly equal, a rounding makes another
// loss.
at::Tensor weight(at::IntArrayRef shape, int number) {
  return test::normal(shape, static_cast<std::uint32_t>(number), 0.1);
}

// Everything that a layer, its gate and the loss make, forward and backward.
struct Results {
  std::vector<at::Tensor> by_token, sums;  // over tokens
};

Results results(int threads) {
  at::set_num_threads(threads);
  const at::Tensor x = test::normal({n, width}, 1).set_requires_grad(true);
  const Norm before{.weight = weight({width}, 8), .bias = weight({width}, 9), .epsilon = 1e-5};
  const at::Tensor router = weight({experts, width}, 2);
  const ExpertFactors factors{.up_A = weight({experts * rank, width}, 10),
                              .up_B = weight({experts, rank, inner}, 11),
                              .down_A = weight({experts, rank, inner}, 12),
                              .down_B = weight({width, experts * rank}, 13)};
  const std::vector<at::Tensor> leaves = {
      x, router, factors.up_A, factors.up_B, factors.down_A, factors.down_B};
  for (const at::Tensor& leaf : leaves) leaf.set_requires_grad(true);
  const FrozenMlp mlp{.up = {{weight({width, inner}, 3), weight({inner}, 4)}},
                      .down = {weight({inner, width}, 5), weight({width}, 6)}};
  const UserModel user_model{.experts = experts, .lora_rank = rank, .top_k = 2};
  ResidualStream stream{.x = x, .waiting = x * 0.5};
  const Normed normed = norm(before, stream, router);
  const LayerRouting routing = route(normed, user_model);
  const at::Tensor y = stream.x + expert_mlp(normed.x, mlp, factors, routing.gate, user_model);
  const at::Tensor targets = at::arange(n, at::kLong).remainder(vocabulary);
  const at::Tensor loss = cross_entropy(y, weight({vocabulary, width}, 7), targets);
  (loss + routing.probability[0]).backward();
  Results all{.by_token = {y.detach(), routing.gate.detach(), x.grad()},
              .sums = {loss.detach(), routing.load}};
  for (std::size_t i = 1; i < leaves.size(); ++i) all.sums.push_back(leaves[i].grad());
  return all;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(threads, KeptThreads)

// at::parallel_for is a template: what it is compiled without, it does without.
BOOST_AUTO_TEST_CASE(loops_are_shared_among_threads) {
  at::set_num_threads(3);
  std::set<std::thread::id> seen;
  std::mutex lock;
  at::parallel_for(0, 3, 1, [&](std::int64_t, std::int64_t) {
    const std::lock_guard guard(lock);
    seen.insert(std::this_thread::get_id());
  });
  BOOST_TEST(seen.size() == 3u);
}

BOOST_AUTO_TEST_CASE(as_many_as_there_are_and_one_agree) {
  const Results one = results(1), three = results(3);
  for (std::size_t i = 0; i < one.by_token.size(); ++i)
    BOOST_TEST(test::close(three.by_token[i], one.by_token[i], 2e-6), "by token, " << i);
  // MKL's product of two random matrices, over as many tokens, is itself another by up to 4e-6 on three
  // threads; what a single token adds is some 5e-3.
  for (std::size_t i = 0; i < one.sums.size(); ++i)
    BOOST_TEST(test::close(three.sums[i], one.sums[i], 1e-5), "sum " << i);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
