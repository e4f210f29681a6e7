// Random streams against the generator's definition, its published test vectors and the distributions they
// promise.
#include "comigs/base/random.hpp"

#include <boost/test/unit_test.hpp>

#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace comigs {

namespace {

using Words = std::array<std::uint32_t, 4>;

// Philox4x32-10 as Salmon et al. 2011 define it, written out anew.
Words philox(Words counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t left = std::uint64_t{0xD2511F53} * counter[0],
                        right = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(right >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(right),
        static_cast<std::uint32_t>(left >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(left)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

Words block_of(RandomStream& stream) {
  Words words;
  for (std::uint32_t& word : words) word = stream.next();
  return words;
}

std::vector<float> normals(std::size_t count, std::uint64_t seed = 7) {
  std::vector<float> values(count);
  fill_normal(values, 1.0f, {.seed = seed});
  return values;
}

double mean_power(const std::vector<float>& values, int power) {
  double sum = 0.0;
  for (const float value : values) sum += std::pow(static_cast<double>(value), power);
  return sum / static_cast<double>(values.size());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(random_streams)

BOOST_AUTO_TEST_CASE(reference_has_the_published_vectors) {
  // Random123's kat_vectors, "philox4x32 10".
  BOOST_TEST(philox({0, 0, 0, 0}, {0, 0}) == (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  BOOST_TEST(philox({ones, ones, ones, ones}, {ones, ones}) ==
             (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  BOOST_TEST(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
             (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

BOOST_AUTO_TEST_CASE(stream_with_zero_key_has_the_published_vector) {
  RandomStream stream({.stream = static_cast<Stream>(0)});
  BOOST_TEST(block_of(stream) == (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

BOOST_AUTO_TEST_CASE(key_and_counter_are_laid_out_as_promised) {
  // Stored runs are reproduced by this layout: seed in the key; block, step, round, user and stream in the
  // counter.
  const StreamKey key{
      .seed = 0x0123456789abcdef, .user = 3, .stream = Stream::router_batch, .round = 17, .step = 5};
  RandomStream stream(key);
  for (std::uint32_t block = 0; block < 3; ++block)
    BOOST_TEST(block_of(stream) == philox({block, 5, 17, (3u << 8) | 2u}, {0x89abcdef, 0x01234567}));
}

BOOST_AUTO_TEST_CASE(numbers_of_streams_never_change) {
  BOOST_TEST(static_cast<int>(Stream::train_batch) == 1);
  BOOST_TEST(static_cast<int>(Stream::router_batch) == 2);
  BOOST_TEST(static_cast<int>(Stream::adapter_init) == 3);
  BOOST_TEST(static_cast<int>(Stream::router_init) == 4);
  BOOST_TEST(static_cast<int>(Stream::base_init) == 5);
  BOOST_TEST(static_cast<int>(Stream::pretrain_batch) == 6);
  BOOST_TEST(static_cast<int>(Stream::collaboration_batch) == 7);
}

BOOST_AUTO_TEST_CASE(order_of_drawing_does_not_matter) {
  const StreamKey first{.seed = 1}, second{.seed = 1, .user = 1};
  RandomStream a(first), b(second);
  const Words alone = block_of(a), other = block_of(b);
  RandomStream c(first), d(second);
  Words mixed_c, mixed_d;
  for (std::size_t i = 0; i < 4; ++i) {
    mixed_d[i] = d.next();
    mixed_c[i] = c.next();
  }
  BOOST_TEST(mixed_c == alone);
  BOOST_TEST(mixed_d == other);
}

BOOST_AUTO_TEST_CASE(copy_continues_from_the_same_place) {
  RandomStream stream({.seed = 3});
  for (int i = 0; i < 6; ++i) (void)stream.next();
  RandomStream copy = stream;
  for (int i = 0; i < 9; ++i) BOOST_TEST(copy.next() == stream.next());
}

BOOST_AUTO_TEST_CASE(every_part_of_the_key_makes_another_stream) {
  std::vector<StreamKey> keys;
  for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32})
    for (const std::uint32_t user : {0u, 1u, 2u, shared_user})
      for (const Stream stream : {Stream::train_batch, Stream::router_batch, Stream::adapter_init})
        for (const std::uint32_t round : {0u, 1u})
          for (const std::uint32_t step : {0u, 1u}) keys.push_back({seed, user, stream, round, step});
  std::set<Words> blocks;
  for (const StreamKey& key : keys) {
    RandomStream stream(key);
    blocks.insert(block_of(stream));
  }
  BOOST_TEST(blocks.size() == keys.size());
}

BOOST_AUTO_TEST_CASE(below_stays_below) {
  RandomStream stream({.seed = 5});
  for (const std::uint64_t bound : {1ull, 2ull, 3ull, 1000003ull, (1ull << 63) + 1, ~0ull})
    for (int i = 0; i < 1000; ++i) BOOST_TEST_REQUIRE(stream.below(bound) < bound);
}

BOOST_AUTO_TEST_CASE(below_has_no_modulo_bias) {
  // At three quarters of 2^64 a remainder favours the first third twofold, a bare product every third number.
  const std::uint64_t bound = 3ull << 62;
  constexpr int draws = 30000;
  std::array<int, 3> thirds{}, residues{};
  RandomStream stream({.seed = 6});
  for (int i = 0; i < draws; ++i) {
    const std::uint64_t value = stream.below(bound);
    ++thirds[value >> 62];
    ++residues[value % 3];
  }
  const double deviation = std::sqrt(draws * (1.0 / 3.0) * (2.0 / 3.0));
  for (std::size_t i = 0; i < 3; ++i) {
    BOOST_TEST(std::abs(thirds[i] - draws / 3) < 5 * deviation);
    BOOST_TEST(std::abs(residues[i] - draws / 3) < 5 * deviation);
  }
}

BOOST_AUTO_TEST_CASE(below_reaches_every_number_evenly) {
  std::array<int, 7> counts{};
  RandomStream stream({.seed = 8});
  for (int i = 0; i < 70000; ++i) ++counts[stream.below(7)];
  double chi_square = 0.0;
  for (const int count : counts) chi_square += (count - 10000.0) * (count - 10000.0) / 10000.0;
  BOOST_TEST(chi_square < 22.46);  // 99.9 % of 6 degrees of freedom
}

BOOST_AUTO_TEST_CASE(uniform_is_the_word_s_upper_24_bits) {
  RandomStream floats({.seed = 9}), words({.seed = 9});
  double sum = 0.0, squares = 0.0;
  constexpr int draws = 100000;
  for (int i = 0; i < draws; ++i) {
    const float value = floats.uniform();
    BOOST_TEST_REQUIRE(value == static_cast<float>(words.next() >> 8) / 16777216.0f);
    BOOST_TEST_REQUIRE((value >= 0.0f && value < 1.0f));
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  BOOST_TEST(std::abs(sum / draws - 0.5) < 5 * std::sqrt(1.0 / 12.0 / draws));
  BOOST_TEST(std::abs(squares / draws - 1.0 / 3.0) < 5 * std::sqrt(4.0 / 45.0 / draws));
}

BOOST_AUTO_TEST_CASE(fill_uniform_fills_the_range_evenly) {
  std::vector<float> values(50000);
  fill_uniform(values, 0.25f, {.seed = 10});
  for (const float value : values) BOOST_TEST_REQUIRE(std::abs(value) <= 0.25f);
  BOOST_TEST(std::abs(mean_power(values, 1)) < 5 * 0.25 / std::sqrt(3.0 * 50000));
  BOOST_TEST(std::abs(mean_power(values, 2) - 0.0625 / 3.0) < 5 * 0.0625 * std::sqrt(4.0 / 45.0 / 50000));
}

BOOST_AUTO_TEST_CASE(normal_has_the_moments) {
  const std::vector<float> values = normals(200000);
  const double root = std::sqrt(200000.0);
  BOOST_TEST(std::abs(mean_power(values, 1)) < 5.0 / root);
  BOOST_TEST(std::abs(mean_power(values, 2) - 1.0) < 5.0 * std::sqrt(2.0) / root);
  BOOST_TEST(std::abs(mean_power(values, 3)) < 5.0 * std::sqrt(15.0) / root);
  BOOST_TEST(std::abs(mean_power(values, 4) - 3.0) < 5.0 * std::sqrt(96.0) / root);
  double neighbours = 0.0;
  for (std::size_t i = 0; i < values.size(); i += 2)
    neighbours += static_cast<double>(values[i]) * values[i + 1];
  BOOST_TEST(std::abs(neighbours / 100000.0) < 5.0 / std::sqrt(100000.0));
}

BOOST_AUTO_TEST_CASE(normal_scales_and_does_not_depend_on_the_count) {
  const std::vector<float> many = normals(1000), odd = normals(333);
  for (std::size_t i = 0; i < odd.size(); ++i) BOOST_TEST(odd[i] == many[i]);
  std::vector<float> wide(1000);
  fill_normal(wide, 2.0f, {.seed = 7});
  for (std::size_t i = 0; i < wide.size(); ++i) BOOST_TEST(wide[i] == 2.0f * many[i]);
  fill_normal({}, 1.0f, {.seed = 7});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs
