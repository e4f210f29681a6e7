// Users are dealt to ranks in their order, and what they have comes together in theirs.
#include "comigs/run/roster.hpp"

#include <boost/test/unit_test.hpp>

#include <numeric>
#include <stdexcept>

namespace comigs::run {

namespace {

// As many users for each rank as the test asks for.
struct Dealt {
  comm::Communicator world = comm::Communicator::world();
  std::size_t ranks = static_cast<std::size_t>(world.size());

  [[nodiscard]] Roster with(std::size_t each) const { return {world, each * ranks}; }
};

std::string text_of(std::size_t user) { return std::string(user % 3, '-') + std::to_string(user); }

}  // namespace

BOOST_FIXTURE_TEST_SUITE(rosters, Dealt)

BOOST_AUTO_TEST_CASE(every_user_has_a_rank_and_every_rank_its_users) {
  for (const std::size_t each : {1u, 3u}) {
    const Roster roster = with(each);
    BOOST_TEST(roster.users() == each * ranks);
    std::size_t next = 0;
    for (int rank = 0; rank < world.size(); ++rank) {
      BOOST_TEST(roster.users_of(rank).size() == each);
      for (const std::size_t user : roster.users_of(rank)) {
        BOOST_TEST(user == next++);
        BOOST_TEST(roster.rank_of(user) == rank);
        BOOST_TEST(roster.name_of(user) == world.name_of(rank));
      }
    }
    BOOST_TEST(next == roster.users());
    BOOST_TEST(roster.own().data() == roster.users_of(world.rank()).data());
  }
}

BOOST_AUTO_TEST_CASE(users_who_do_not_come_out_even_are_refused) {
  BOOST_CHECK_THROW(Roster(world, 0), std::invalid_argument);
  if (ranks > 1) {
    BOOST_CHECK_THROW(Roster(world, ranks + 1), std::invalid_argument);
    BOOST_CHECK_THROW(Roster(world, ranks - 1), std::invalid_argument);
  }
}

BOOST_AUTO_TEST_CASE(numbers_are_gathered_in_users_order) {
  for (const std::size_t each : {1u, 3u}) {
    const Roster roster = with(each);
    std::vector<double> own;
    std::vector<std::int64_t> whole;
    for (const std::size_t user : roster.own()) {
      own.insert(own.end(), {static_cast<double>(user), static_cast<double>(user) + 0.5});
      whole.push_back(10 * static_cast<std::int64_t>(user));
    }
    const std::vector<double> all = roster.all_gather(own);
    const std::vector<std::int64_t> all_whole = roster.all_gather(whole);
    BOOST_TEST_REQUIRE(all.size() == 2 * roster.users());
    BOOST_TEST_REQUIRE(all_whole.size() == roster.users());
    for (std::size_t user = 0; user < roster.users(); ++user) {
      BOOST_TEST(all[2 * user] == static_cast<double>(user));
      BOOST_TEST(all[2 * user + 1] == static_cast<double>(user) + 0.5);
      BOOST_TEST(all_whole[user] == 10 * static_cast<std::int64_t>(user));
    }
  }
}

BOOST_AUTO_TEST_CASE(texts_of_any_length_are_gathered_by_user) {
  for (const std::size_t each : {1u, 3u}) {
    const Roster roster = with(each);
    std::vector<std::string> own;
    for (const std::size_t user : roster.own()) own.push_back(text_of(user));
    const std::vector<std::string> all = roster.all_gather(own);
    BOOST_TEST_REQUIRE(all.size() == roster.users());
    for (std::size_t user = 0; user < all.size(); ++user) BOOST_TEST(all[user] == text_of(user));
  }
}

BOOST_AUTO_TEST_CASE(blocks_of_any_length_reach_the_first_rank_by_user) {
  for (const std::size_t each : {1u, 3u}) {
    const Roster roster = with(each);
    std::vector<std::vector<float>> blocks;
    for (const std::size_t user : roster.own()) blocks.emplace_back(user + 1, static_cast<float>(user));
    const std::vector<std::span<const float>> own(blocks.begin(), blocks.end());
    const std::vector<std::vector<float>> all = roster.all_gather_to_first(own);
    BOOST_TEST_REQUIRE(all.size() == (world.is_first() ? roster.users() : 0u));
    for (std::size_t user = 0; user < all.size(); ++user)
      BOOST_TEST((all[user] == std::vector<float>(user + 1, static_cast<float>(user))));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
