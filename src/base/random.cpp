#include "comigs/base/random.hpp"

#include <Random123/philox.h>

#include <cmath>
#include <numbers>

namespace comigs {

namespace {

// The key has room for 64 bits and the counter for 128: (seed) x (block, step, round, stream and user).
// User and stream share a word; users fit 24 bits, `shared_user` maps to the largest of them.
r123::Philox4x32::ctr_type philox(const StreamKey& key, std::uint32_t block) {
  const std::uint32_t user_and_stream = (key.user << 8) | static_cast<std::uint32_t>(key.stream);
  const r123::Philox4x32::ctr_type counter{{block, key.step, key.round, user_and_stream}};
  const r123::Philox4x32::key_type seed{
      {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)}};
  return r123::Philox4x32{}(counter, seed);
}

}  // namespace

std::uint32_t RandomStream::next() {
  if (word_ == 4) {
    const auto words = philox(key_, block_++);
    for (std::uint32_t i = 0; i < 4; ++i) words_[i] = words[i];
    word_ = 0;
  }
  return words_[word_++];
}

std::uint64_t RandomStream::below(std::uint64_t bound) {
  const auto draw = [this] {
    const std::uint64_t high = next();
    return (high << 32) | next();
  };
  __extension__ using Wide = unsigned __int128;
  Wide product = static_cast<Wide>(draw()) * bound;
  const std::uint64_t threshold = (0 - bound) % bound;
  while (static_cast<std::uint64_t>(product) < threshold) product = static_cast<Wide>(draw()) * bound;
  return static_cast<std::uint64_t>(product >> 64);
}

float RandomStream::uniform() { return static_cast<float>(next() >> 8) * 0x1p-24f; }

void fill_uniform(std::span<float> values, float bound, const StreamKey& key) {
  RandomStream stream(key);
  for (float& value : values) value = bound * (2.0f * stream.uniform() - 1.0f);
}

void fill_normal(std::span<float> values, float deviation, const StreamKey& key) {
  RandomStream stream(key);
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const float radius = deviation * std::sqrt(-2.0f * std::log(1.0f - stream.uniform()));
    const float angle = 2.0f * std::numbers::pi_v<float> * stream.uniform();
    values[i] = radius * std::cos(angle);
    if (i + 1 < values.size()) values[i + 1] = radius * std::sin(angle);
  }
}

}  // namespace comigs
