// Users with the same model and the same text share the batches, and find what each would have found alone.
#include "comigs/run/shared_evaluation.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <csignal>
#include <limits>
#include <optional>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/train/evaluation.hpp"
#include "run/served.hpp"

namespace comigs::run {

namespace {

constexpr std::int64_t batches = 12;  // of one window each

// All users are tested on the same text; what they are validated on is their own.
struct Common : test::Material {
  explicit Common(const char* name = "comigs-1gxs") : Material(name) {
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
    std::optional<HeldOutReports> found;
    all_shared(seat).all_evaluate(
        work, [&] { return ++run < 0; }, [&](const HeldOutReports& reports) { found = reports; });
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

// Rounds after which all users have one model.
struct Averaged : Common {
  Averaged() : Common("fedavg") { config.run.evaluate_every = 1; }

  comm::Interruption interruption{world};

  // What the user's record should have of its test text.
  [[nodiscard]] double test_loss(const Seat& seat) const {
    return train::evaluate(*base, seat.parameters(), shards.test, {.context = 6, .sequences = 1})
        .evaluation.loss_sum;
  }
};

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
  const SharedEvaluation::AllDo present_do = [&](const std::function<void()>& part) {
    if (is_present) part();
  };
  int taken = 0;
  all_shared(seat).all_evaluate(
      present_do, [&] { return ++run < 0; }, [&](const HeldOutReports&) { ++taken; });
  BOOST_TEST(taken == (is_present ? 1 : 0));
  BOOST_TEST(run == (is_present ? 5 + batches / (world.size() - 1) : 0));
}

BOOST_FIXTURE_TEST_CASE(a_round_says_what_the_user_would_find_alone, Averaged) {
  test::Served served(*this, interruption);
  for (const std::int64_t round : {0, 1, 2, 3}) {
    const results::UserRound record = served.all_round(round);
    BOOST_TEST(record.after.test.loss_sum == test_loss(served.seat));
    BOOST_TEST(record.after.test.tokens == 6 * batches);
    BOOST_TEST(record.after.validation.tokens == 30);
    BOOST_TEST(record.seconds.evaluation > 0.0);
    if (round == 3 && world.size() > 1) BOOST_TEST(record.before.test.loss_sum != record.after.test.loss_sum);
  }
}

BOOST_FIXTURE_TEST_CASE(and_does_so_when_a_user_has_dropped_out, Averaged) {
  config.run.on_user_failure = config::OnUserFailure::go_on;
  const test::Quiet quiet;
  test::Served served(*this, interruption);
  const bool fails = world.size() > 1 && own + 1 == roster.users();
  if (fails)
    adapter::lora_layers(served.seat.parameters())[0].attention[0].B.detach()[0][0] =
        std::numeric_limits<float>::quiet_NaN();
  const results::UserRound record = served.all_round(1);
  BOOST_TEST(record.participation == (fails ? 0 : 1));
  BOOST_TEST((record.seconds.evaluation > 0.0) == !fails);
  if (!fails) BOOST_TEST(record.after.test.loss_sum == test_loss(served.seat));
}

BOOST_FIXTURE_TEST_CASE(one_who_is_told_to_stop_stops_all, Averaged) {
  const test::Quiet quiet;
  test::Served served(*this, interruption);
  if (own + 1 == roster.users()) std::raise(SIGUSR1);
  BOOST_CHECK_EXCEPTION((void)served.all_round(0), PeerError,
                        [](const PeerError& error) { return error.exit_code() == ExitCode::interrupted; });
  comm::Interruption afterwards(world);
  test::Served again(*this, afterwards);
  BOOST_TEST(again.all_round(0).after.test.loss_sum == test_loss(again.seat));
}

// A user's loss that is not finite is everybody's failure, whoever ran the batch.
BOOST_FIXTURE_TEST_CASE(a_failure_is_everybody_s, Averaged) {
  const test::Quiet quiet;
  test::Served served(*this, interruption);
  if (own == 0) served.seat.parameters().values().fill_(std::numeric_limits<float>::quiet_NaN());
  BOOST_CHECK_THROW((void)served.all_round(0), PeerError);
  BOOST_TEST(world.all_sum(std::int64_t{1}) == world.size());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
