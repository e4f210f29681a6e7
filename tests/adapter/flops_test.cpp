// The count of a step's products against one made by hand.
#include "comigs/adapter/flops.hpp"

#include <boost/test/unit_test.hpp>

namespace comigs::adapter {

using namespace model;

namespace {

// Two layers of width 16 (inner 64), a vocabulary of 1000; three sequences of 8 tokens.
const Architecture architecture = gpt2_architecture(2, 16, 2, 1000, 64);
constexpr std::int64_t tokens = 24, context = 8;

double of(const UserModel& user_model, Pass pass) {
  return flops(architecture, user_model, pass, tokens, context);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(operations)

BOOST_AUTO_TEST_CASE(as_by_hand) {
  // qkv 16 x 48, projection 16 x 16, up and down 16 x 64 each; the head.
  const double frozen = 2 * (16 * 48 + 16 * 16 + 2 * 16 * 64) + 1000 * 16, attention = 2 * 8 * 16;
  // Of rank 4 on qkv and projection; of three experts the sides on the width of 16, of two the inner sides.
  const double lora = 2 * 4 * ((16 + 48) + (16 + 16) + 3 * (16 + 16) + 2 * (64 + 64)), router = 2 * 3 * 16;
  const UserModel three{.experts = 3, .lora_rank = 4, .top_k = 2};
  BOOST_TEST(of(three, Pass::evaluation) == 2 * tokens * (frozen + attention + lora + router));
  BOOST_TEST(of(three, Pass::experts) == 2 * tokens * (2 * frozen + 3 * attention + 3 * lora + 2 * router));
  BOOST_TEST(of(three, Pass::routers) == 2 * tokens * (2 * frozen + 3 * attention + 2 * lora + 3 * router));
}

BOOST_AUTO_TEST_CASE(without_a_router_every_expert_sees_every_token) {
  const UserModel equal{.experts = 2, .lora_rank = 4, .top_k = 2, .gate = Gate::equal};
  const UserModel routed{.experts = 2, .lora_rank = 4, .top_k = 2};
  BOOST_TEST(of(routed, Pass::evaluation) - of(equal, Pass::evaluation) == 2 * tokens * (2 * 2 * 16));
}

BOOST_AUTO_TEST_CASE(the_base_model_alone) {
  const UserModel nothing{.experts = 0, .gate = Gate::none};
  BOOST_TEST(of(nothing, Pass::evaluation) == 2 * tokens * (2 * 12 * 16 * 16 + 1000 * 16 + 2 * 8 * 16));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
