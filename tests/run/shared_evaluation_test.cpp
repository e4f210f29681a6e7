// Users with the same model and the same text share the batches, and find what each would have found alone.
#include "comigs/run/shared_evaluation.hpp"

#include <boost/test/unit_test.hpp>

#include <memory>

#include "comigs/base/sha256.hpp"
#include "comigs/train/evaluation.hpp"
#include "run/served.hpp"

namespace comigs::run {

namespace {

constexpr std::int64_t batches = 12;  // of one window each

// All users are tested on the same text; what they are validated on is their own.
struct Common : test::Material {
  Common() {
    for (config::User& user : config.users) {
      user.experts = 2;
      user.memory = 1e9;
      user.micro_batch_sequences = 1;
    }
    users = federation::user_models(method, config.users);
    shards.test = promised("test", test::random_tokens(6 * batches + 1, 37, 7));
    shards.validation = promised("validation", test::random_tokens(31, 37, 20 + own));
  }

  [[nodiscard]] data::TokenShard promised(const std::string& name, const test::Tokens& tokens) const {
    const std::filesystem::path file = folder / (name + ".bin");
    test::write_tokens(file, tokens);
    return {{.file = file, .tokens = std::ssize(tokens), .sha256 = sha256_of_file(file)}, 37};
  }

  [[nodiscard]] SharedEvaluation all_shared(const Seat& seat) const {
    return SharedEvaluation({.world = world, .roster = roster, .users = users, .seat = seat});
  }

  static void work(const std::function<void()>& part) { part(); }

  // Collective. Who is tested with `others` users of the same model runs a part of the batches, and finds
  // what it finds alone.
  void all_check(const Seat& seat, std::int64_t others) const {
    std::int64_t run = 0;
    const auto found = all_shared(seat).all_evaluate(true, work, [&] { return ++run < 0; });
    BOOST_TEST_REQUIRE(found.has_value());
    const train::EvaluationOptions options{.context = 6, .sequences = 1};
    const auto alone = [&](const data::TokenShard& split) {
      return train::evaluate(*base, seat.parameters(), split, options);
    };
    const train::SplitReport test = alone(shards.test), validation = alone(shards.validation);
    BOOST_TEST(found->test.evaluation.loss_sum == test.evaluation.loss_sum);
    BOOST_TEST(found->test.evaluation.tokens == 6 * batches);
    BOOST_TEST((found->test.routing.score == test.routing.score));
    BOOST_TEST(found->validation.evaluation.loss_sum == validation.evaluation.loss_sum);
    BOOST_TEST(found->evaluations().test.loss_sum == test.evaluation.loss_sum);
    BOOST_TEST(run == 5 + batches / (others + 1));
  }
};

// Every user's model has the numbers of one user in `of`.
void make_alike(Seat& seat, std::size_t of) {
  seat.parameters().values().copy_(
      test::normal({seat.parameters().values().numel()}, static_cast<std::uint32_t>(seat.user() / of), 0.1));
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(shared_evaluation, Common)

BOOST_AUTO_TEST_CASE(all_share_the_work_of_one_model) {
  Seat seat(seat_setup());
  make_alike(seat, roster.users());
  all_check(seat, world.size() - 1);
}

BOOST_AUTO_TEST_CASE(or_two_by_two) {
  Seat seat(seat_setup());
  make_alike(seat, 2);
  all_check(seat, world.size() > 1 ? 1 : 0);
}

BOOST_AUTO_TEST_CASE(users_with_models_of_their_own_do_it_alone) {
  Seat seat(seat_setup());
  make_alike(seat, 1);
  all_check(seat, 0);
}

// The same numbers, read in another way, are another model.
BOOST_AUTO_TEST_CASE(models_of_another_look_are_not_alike) {
  for (std::size_t user = 0; user < users.size(); ++user)
    users[user].lora_alpha = static_cast<double>(1 + user);
  Seat seat(seat_setup());
  make_alike(seat, roster.users());
  all_check(seat, 0);
}

BOOST_AUTO_TEST_CASE(a_text_without_a_digest_is_nobody_else_s) {
  if (own == 0)
    shards.test =
        test::write_shard(folder / "no-digest.bin", test::random_tokens(6 * batches + 1, 37, 7), 37);
  Seat seat(seat_setup());
  make_alike(seat, roster.users());
  all_check(seat, own == 0 ? 0 : std::max(world.size() - 2, 0));
}

BOOST_AUTO_TEST_CASE(who_is_not_present_is_not_waited_for) {
  Seat seat(seat_setup());
  make_alike(seat, roster.users());
  const bool is_present = own + 1 < roster.users();
  std::int64_t run = 0;
  const auto found = all_shared(seat).all_evaluate(is_present, work, [&] { return ++run < 0; });
  BOOST_TEST(found.has_value() == is_present);
  BOOST_TEST(run == (is_present ? 5 + batches / (world.size() - 1) : 0));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
