// Every collective against what each rank can work out alone. Run on several numbers of ranks.
#include "comigs/comm/communicator.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "comigs/base/error.hpp"

namespace comigs::comm {

namespace {

const Communicator& world() {
  static const Communicator communicator = Communicator::world();
  return communicator;
}

// Different on every rank, empty on rank 1, with a zero byte inside.
std::string text_of(int rank) {
  if (rank == 1) return {};
  std::string text = "rank " + std::to_string(rank) + " ü";
  text.push_back('\0');
  return text + std::string(static_cast<std::size_t>(rank) * 1000, 'x');
}

std::vector<float> block_of(int rank, std::size_t count) {
  std::vector<float> block(count);
  for (std::size_t i = 0; i < count; ++i)
    block[i] = static_cast<float>(rank) * 10000.0f + static_cast<float>(i);
  return block;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(communicators)

BOOST_AUTO_TEST_CASE(world_has_every_rank_once) {
  BOOST_TEST(world().rank() >= 0);
  BOOST_TEST(world().rank() < world().size());
  BOOST_TEST(world().is_first() == (world().rank() == 0));
  const std::int64_t size = world().size();
  BOOST_TEST(world().all_sum(std::int64_t{1}) == size);
  BOOST_TEST(world().all_sum(world().rank()) == size * (size - 1) / 2);
  static_assert(!std::is_copy_constructible_v<Communicator> &&
                std::is_nothrow_move_constructible_v<Communicator>);
}

BOOST_AUTO_TEST_CASE(max) {
  BOOST_TEST(world().all_max(-1.5 - world().rank()) == -1.5);
  BOOST_TEST(world().all_max(0.25 * world().rank()) == 0.25 * (world().size() - 1));
}

BOOST_AUTO_TEST_CASE(gather_of_numbers) {
  const std::vector<double> doubles = {1.0 * world().rank(), 0.5};
  const std::vector<double> all = world().all_gather(std::span<const double>(doubles));
  const std::vector<std::int64_t> integers = {world().rank() - (std::int64_t{1} << 40), 7, world().rank()};
  const std::vector<std::int64_t> all_integers = world().all_gather(std::span<const std::int64_t>(integers));
  BOOST_TEST(all.size() == 2u * static_cast<std::size_t>(world().size()));
  BOOST_TEST(all_integers.size() == 3u * static_cast<std::size_t>(world().size()));
  for (std::size_t r = 0; 2 * r + 1 < all.size() && 3 * r + 2 < all_integers.size(); ++r) {
    BOOST_TEST(all[2 * r] == static_cast<double>(r));
    BOOST_TEST(all[2 * r + 1] == 0.5);
    BOOST_TEST(all_integers[3 * r] == static_cast<std::int64_t>(r) - (std::int64_t{1} << 40));
    BOOST_TEST(all_integers[3 * r + 2] == static_cast<std::int64_t>(r));
  }
  BOOST_TEST(world().all_gather(std::span<const double>()).empty());
}

BOOST_AUTO_TEST_CASE(gather_of_texts) {
  const std::vector<std::string> texts = world().all_gather(text_of(world().rank()));
  BOOST_TEST(texts.size() == static_cast<std::size_t>(world().size()));
  for (std::size_t r = 0; r < texts.size(); ++r) BOOST_TEST((texts[r] == text_of(static_cast<int>(r))));
  for (const std::string& text : world().all_gather(std::string())) BOOST_TEST(text.empty());
}

BOOST_AUTO_TEST_CASE(gather_of_unequal_blocks_to_the_first) {
  for (const bool rising : {true, false}) {
    const auto count = [&](int rank) {
      return static_cast<std::size_t>(rising ? rank : world().size() - 1 - rank) * 5000;
    };
    const std::vector<float> own = block_of(world().rank(), count(world().rank()));
    const std::vector<std::vector<float>> blocks = world().all_gather_to_first(own);
    BOOST_TEST(blocks.size() == (world().is_first() ? static_cast<std::size_t>(world().size()) : 0u));
    for (std::size_t r = 0; r < blocks.size(); ++r)
      BOOST_TEST((blocks[r] == block_of(static_cast<int>(r), count(static_cast<int>(r)))));
  }
}

BOOST_AUTO_TEST_CASE(broadcast_gives_everyone_the_first_rank_s_text) {
  const std::string text = "from the first" + std::string(3000, 'y');
  BOOST_TEST(world().all_broadcast(world().is_first() ? text : text_of(world().rank())) == text);
  BOOST_TEST(world().all_broadcast(world().is_first() ? std::string() : "other").empty());
}

BOOST_AUTO_TEST_CASE(split_into_even_ranks) {
  const bool member = world().rank() % 2 == 0;
  const std::optional<Communicator> part = world().all_split(member);
  BOOST_TEST(part.has_value() == member);
  if (!part) return;
  BOOST_TEST(part->size() == (world().size() + 1) / 2);
  BOOST_TEST(part->rank() == world().rank() / 2);
  // Sums of the part see the part alone.
  std::int64_t expected = 0;
  for (int rank = 0; rank < world().size(); rank += 2) expected += rank;
  BOOST_TEST(part->all_sum(world().rank()) == expected);
}

BOOST_AUTO_TEST_CASE(split_with_all_or_nobody) {
  BOOST_TEST(!world().all_split(false).has_value());
  const std::optional<Communicator> everyone = world().all_split(true);
  BOOST_TEST(everyone.has_value());
  if (everyone) BOOST_TEST(everyone->size() == world().size());
  if (everyone) BOOST_TEST(everyone->rank() == world().rank());
}

BOOST_AUTO_TEST_CASE(split_of_a_split) {
  const std::optional<Communicator> upper = world().all_split(world().rank() > 0);
  if (!upper) return;
  const std::optional<Communicator> last = upper->all_split(world().rank() == world().size() - 1);
  if (last) BOOST_TEST(last->size() == 1);
}

BOOST_AUTO_TEST_CASE(split_by_text_holds_those_with_the_same) {
  const auto text_of_rank = [](int rank) {
    return std::string("card\0", 5) + (rank % 3 == 1 ? "b" : rank % 3 == 2 ? "" : "a");
  };
  const Communicator part = world().all_split_by(text_of_rank(world().rank()));
  std::vector<std::int64_t> expected;
  for (int rank = 0; rank < world().size(); ++rank)
    if (text_of_rank(rank) == text_of_rank(world().rank())) expected.push_back(rank);
  const std::int64_t own = world().rank();
  const std::vector<std::int64_t> members = part.all_gather(std::span(&own, 1));
  BOOST_TEST(members == expected, boost::test_tools::per_element());
  BOOST_TEST(world().all_split_by("").size() == world().size());
}

BOOST_AUTO_TEST_CASE(split_by_node_holds_the_ranks_of_this_machine) {
  const Communicator node = world().all_split_by_node();
  BOOST_TEST(node.size() == world().size());
  BOOST_TEST(node.rank() == world().rank());
}

BOOST_AUTO_TEST_CASE(moving_hands_the_group_over) {
  std::optional<Communicator> part = world().all_split(true);
  if (!part) return;
  Communicator moved = std::move(*part);
  BOOST_TEST(part->handle() == MPI_COMM_NULL);
  BOOST_TEST(moved.all_sum(std::int64_t{1}) == world().size());
  Communicator assigned = Communicator::world();
  assigned = std::move(moved);
  BOOST_TEST(assigned.handle() != MPI_COMM_WORLD);
  BOOST_TEST(assigned.all_sum(std::int64_t{2}) == 2 * world().size());
}

BOOST_AUTO_TEST_CASE(errors_have_mpi_s_own_words) {
  BOOST_CHECK_NO_THROW(check_mpi(MPI_SUCCESS, "MPI_Barrier"));
  BOOST_CHECK_EXCEPTION(check_mpi(MPI_ERR_COMM, "MPI_Barrier"), CommError, [](const CommError& error) {
    const std::string text = error.what();
    return text.find("MPI_Barrier failed: ") == 0 && text.find("MPI_ERR_COMM") != std::string::npos;
  });
}

BOOST_AUTO_TEST_CASE(a_wrong_call_throws_instead_of_aborting) {
  // The communicator's error handler returns; a send to a rank that is not there is refused locally.
  const float value = 0.0f;
  const auto send = [&] {
    check_mpi(MPI_Send(&value, 1, MPI_FLOAT, world().size(), 0, world().handle()), "MPI_Send");
  };
  BOOST_CHECK_THROW(send(), CommError);
  BOOST_TEST(world().all_sum(std::int64_t{1}) == world().size());  // and the communicator still works
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
