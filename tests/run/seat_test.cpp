// A user who takes its state to another seat goes on there as if it had stayed.
#include "comigs/run/seat.hpp"

#include <boost/test/unit_test.hpp>

#include "run/served.hpp"

namespace comigs::run {

using results::Stage;

namespace {

struct Seats : test::Material {
  Seat first{seat_setup()}, second{seat_setup()};

  static void begin(Seat& seat, std::int64_t round) {
    seat.progress() = {.stage = Stage::training, .steps = 0, .record = {.round = round}};
  }
  static bool stop_never() { return false; }

  // A copy of its own, as a shelf would keep it.
  static UserState kept(const Seat& seat) {
    UserState state = seat.give();
    for (auto& [name, block] : state.blocks) block = test::copy_of(block);
    return state;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(seats, Seats)

BOOST_AUTO_TEST_CASE(a_seat_begins_as_drawn_in_round_0) {
  BOOST_TEST(test::same_bits(first.parameters().values(), second.parameters().values()));
  BOOST_TEST(first.progress().record.round == 0);
  BOOST_TEST((first.progress().stage == Stage::aggregated));
  BOOST_TEST(first.user() == own);
  BOOST_TEST(first.options().experts == config.users[own].experts);
}

BOOST_AUTO_TEST_CASE(or_as_an_adapter) {
  const std::filesystem::path place = folder / "adapter";
  std::filesystem::create_directories(place);
  test::write_text(place / "adapter_config.json", R"({"peft_type": "LORA", "r": 1, "lora_alpha": 3})");
  const at::Tensor A = test::normal({1, 16}, 1), B = test::normal({48, 1}, 2);
  test::write_weights_file(place / "adapter_model.safetensors",
                           {{"h.1.attn.c_attn.lora_A.weight", A}, {"h.1.attn.c_attn.lora_B.weight", B}},
                           "base_model.model.transformer.");
  run::SeatSetup setup = seat_setup();
  setup.init_adapter.emplace(place, base->architecture());
  const Seat seat(std::move(setup));
  const adapter::Lora begun = seat.parameters().loras()[2], other = seat.parameters().loras()[3];
  BOOST_TEST(test::close(users[own].scale() * begun.B.detach().mm(begun.A.detach()), 3 * B.mm(A), 1e-6));
  BOOST_TEST(test::same_bits(begun.A.detach().narrow(0, 1, 1),
                             first.parameters().loras()[2].A.detach().narrow(0, 1, 1)));
  BOOST_TEST(test::same_bits(other.A.detach(), first.parameters().loras()[3].A.detach()));
}

BOOST_AUTO_TEST_CASE(who_moves_goes_on_to_the_same_bits) {
  begin(first, 1);
  BOOST_TEST(first.train());
  first.keep_start();
  const UserState state = kept(first);
  begin(first, 2);
  BOOST_TEST(first.train());

  second.take(state);
  BOOST_TEST(second.progress().record.round == 1);
  BOOST_TEST(second.progress().steps == config.users[own].local_steps);
  BOOST_TEST(second.start().seconds.experts == state.standing.start.seconds.experts);
  begin(second, 2);
  BOOST_TEST(second.train());
  const UserState one = first.give(), other = second.give();
  BOOST_TEST_REQUIRE(one.blocks.size() == other.blocks.size());
  for (std::size_t i = 0; i < one.blocks.size(); ++i) {
    BOOST_TEST(one.blocks[i].first == other.blocks[i].first);
    BOOST_TEST(test::same_bits(one.blocks[i].second, other.blocks[i].second), one.blocks[i].first);
  }
}

BOOST_AUTO_TEST_CASE(in_the_midst_of_a_round_too) {
  begin(first, 1);
  int asked = 0;
  first.trainer().stop_when([&] { return ++asked == 2; });
  BOOST_TEST(!first.train());
  BOOST_TEST(first.progress().steps == 1);
  second.take(kept(first));
  first.trainer().stop_when({});
  BOOST_TEST(first.train());
  BOOST_TEST(second.train());
  BOOST_TEST(second.progress().steps == 2);
  BOOST_TEST(test::same_bits(first.parameters().values(), second.parameters().values()));
}

BOOST_AUTO_TEST_CASE(an_evaluation_is_of_the_round_under_way) {
  first.evaluate_training(stop_never);
  const auto alone = [&](const data::TokenShard& split) {
    return first.report(first.batch_sums(split, {}, stop_never), 1);
  };
  first.record({.validation = alone(shards.validation), .test = alone(shards.test)});
  const results::UserRound& record = first.progress().record;
  BOOST_TEST(record.after.train.tokens == 39);
  BOOST_TEST(record.after.validation.tokens == 59);
  BOOST_TEST(record.after.test.tokens == 49);
  BOOST_TEST(record.after.test.loss_sum ==
             train::evaluate(*base, first.parameters(), shards.test, {.context = 6}).evaluation.loss_sum);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
