// Sums and other reductions over ranks against those by hand; the bits are the same on every rank.
#include "comigs/comm/reduction.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace comigs::comm {

namespace {

constexpr std::size_t sizes[] = {0, 1, 7, 65536, 65537, 70000};

// Of another magnitude on each rank, so that the order of a sum shows in its last bits.
float element(int rank, std::size_t i) {
  return static_cast<float>(std::sin(0.37 * static_cast<double>(i) + 1.1 * rank) * std::pow(13.0, rank % 3));
}

std::vector<float> block_of(int rank, std::size_t count) {
  std::vector<float> block(count);
  for (std::size_t i = 0; i < count; ++i) block[i] = element(rank, i);
  return block;
}

// Whether all ranks hold the same bits; compared on the first, told to all.
bool all_same_bits(const Communicator& communicator, const std::vector<float>& block) {
  std::int64_t different = 0;
  for (const std::vector<float>& other : communicator.all_gather_to_first(block))
    if (other.size() != block.size() ||
        (!block.empty() && std::memcmp(other.data(), block.data(), block.size() * sizeof(float)) != 0))
      ++different;
  return communicator.all_sum(different) == 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(reductions)

BOOST_AUTO_TEST_CASE(any_order) {
  const Communicator world = Communicator::world();
  Reduction reduction(Memory::host, Sums::any_order);
  for (const std::size_t size : sizes) {
    std::vector<float> block = block_of(world.rank(), size);
    reduction.all_sum(world, block);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) {
      double sum = 0.0, magnitude = 0.0;
      for (int rank = 0; rank < world.size(); ++rank) {
        sum += static_cast<double>(element(rank, i));
        magnitude += std::abs(static_cast<double>(element(rank, i)));
      }
      if (!(std::abs(static_cast<double>(block[i]) - sum) <= 1e-6 * magnitude)) ++wrong;
    }
    BOOST_TEST(wrong == 0u, size << " elements: " << wrong << " wrong sums");
    BOOST_TEST(all_same_bits(world, block));
  }
}

BOOST_AUTO_TEST_CASE(rank_order_adds_rank_after_rank) {
  const Communicator world = Communicator::world();
  Reduction reduction(Memory::host, Sums::rank_order);
  for (const std::size_t size : sizes) {
    std::vector<float> block = block_of(world.rank(), size), expected = block_of(0, size);
    for (int rank = 1; rank < world.size(); ++rank)
      for (std::size_t i = 0; i < size; ++i) expected[i] += element(rank, i);
    reduction.all_sum(world, block);
    BOOST_TEST((block == expected), size << " elements");
    BOOST_TEST(all_same_bits(world, block));
  }
}

BOOST_AUTO_TEST_CASE(bf16_rounds_numbers_and_sums_alone) {
  // Rounded by the definition: to the nearest multiple of 2^-7 of the number's power of two, ties to even.
  const auto rounded = [](double value) {
    int exponent = 0;
    const double mantissa = std::frexp(value, &exponent);
    return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(mantissa, 8)), exponent - 8));
  };
  const Communicator world = Communicator::world();
  Reduction reduction(Memory::host, Sums::bf16);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{7}, (std::size_t{1} << 22) + 3}) {
    std::vector<float> block = block_of(world.rank(), size), expected(size);
    for (std::size_t i = 0; i < size; ++i) {
      float sum = 0.0f;
      for (int rank = 0; rank < world.size(); ++rank) sum += rounded(static_cast<double>(element(rank, i)));
      expected[i] = rounded(static_cast<double>(sum));
    }
    reduction.all_sum(world, block);
    BOOST_TEST((block == expected), size << " elements");
  }
}

BOOST_AUTO_TEST_CASE(bf16_keeps_what_is_not_a_number) {
  const Communicator world = Communicator::world();
  Reduction reduction(Memory::host, Sums::bf16);
  // The NaN that graphics cards make: rounding its bits up would carry over into the sign.
  std::vector<float> block(5, world.is_first() ? std::bit_cast<float>(0x7FFFFFFFu) : 1.0f);
  reduction.all_sum(world, block);
  for (const float value : block) BOOST_TEST(std::isnan(value));
}

BOOST_AUTO_TEST_CASE(columns_have_the_numbers_of_all_ranks_in_their_order) {
  const Communicator world = Communicator::world();
  Reduction reduction(Memory::host, Sums::any_order);
  // A digit for each rank, so that every number and its place show in the result.
  const auto digits = [](std::span<const float> numbers, std::span<float> result) {
    std::ranges::fill(result, 0.0f);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      result[i % result.size()] = 10.0f * result[i % result.size()] + numbers[i];
  };
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{5000}, (std::size_t{1} << 20) + 3}) {
    std::vector<float> block(size), expected(size, 0.0f);
    for (std::size_t i = 0; i < size; ++i) {
      for (int rank = 0; rank < world.size(); ++rank)
        expected[i] = 10.0f * expected[i] + static_cast<float>((i + 3 * static_cast<std::size_t>(rank)) % 10);
      block[i] = static_cast<float>((i + 3 * static_cast<std::size_t>(world.rank())) % 10);
    }
    reduction.all_by_columns(world, block, digits);
    BOOST_TEST((block == expected), size << " elements");
  }
}

BOOST_AUTO_TEST_CASE(columns_are_rounded_on_their_way_where_sums_are) {
  const Communicator world = Communicator::world();
  Reduction reduction(Memory::host, Sums::bf16);
  // Of nine bits one is too many, and a half goes to the even neighbour.
  std::vector<float> block(9, 257.0f + static_cast<float>(world.rank()));
  float first = 0.0f;
  reduction.all_by_columns(world, block, [&](std::span<const float> numbers, std::span<float> result) {
    first = numbers[0];
    for (float& number : result) number = 387.0f;
  });
  if (world.is_first()) BOOST_TEST(first == 256.0f);
  BOOST_TEST((block == std::vector<float>(9, 388.0f)));
}

BOOST_AUTO_TEST_CASE(buffers_serve_any_size_and_any_group) {
  const Communicator world = Communicator::world();
  Reduction made(Memory::host, Sums::rank_order);
  Reduction reduction = std::move(made);
  for (const std::size_t size : {70000u, 3u, 66000u}) {
    std::vector<float> block(size, 1.0f);
    reduction.all_sum(world, block);
    BOOST_TEST((block == std::vector<float>(size, static_cast<float>(world.size()))));
  }
  const std::optional<Communicator> even = world.all_split(world.rank() % 2 == 0);
  if (!even) return;
  std::vector<float> block(10, 1.0f);
  reduction.all_sum(*even, block);
  BOOST_TEST((block == std::vector<float>(10, static_cast<float>(even->size()))));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::comm
