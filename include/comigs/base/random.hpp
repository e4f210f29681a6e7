// Counter-based random streams: a number depends on its key and its place in the stream, never on what was
// drawn before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace comigs {

/// What a stream is for. Values are part of the reproducibility contract: never renumber, only append.
enum class Stream : std::uint32_t {
  train_batch = 1,
  router_batch = 2,
  adapter_init = 3,
  router_init = 4,
  base_init = 5,
  pretrain_batch = 6,
  collaboration_batch = 7,
  generation = 8,
  prompt_init = 9,
  calibration_batch = 10,
  gate_clusters = 11
};

/// Names a stream. `user` may be `shared_user` for numbers that all users draw alike.
struct StreamKey {
  std::uint64_t seed = 0;
  std::uint32_t user = 0;
  Stream stream = Stream::train_batch;
  std::uint32_t round = 0;
  std::uint32_t step = 0;
};

inline constexpr std::uint32_t shared_user = 0xFFFFFFFFu;

/// Philox4x32-10 (Salmon et al. 2011, Random123) as a sequence of 32-bit words. Copyable, no hidden state but
/// its position.
class RandomStream {
 public:
  explicit RandomStream(const StreamKey& key) : key_(key) {}

  [[nodiscard]] std::uint32_t next();
  /// Uniform integer in [0, bound), without modulo bias (Lemire 2019). `bound` > 0.
  [[nodiscard]] std::uint64_t below(std::uint64_t bound);
  /// Uniform in [0, 1), 24 bits.
  [[nodiscard]] float uniform();

 private:
  StreamKey key_;
  std::uint32_t block_ = 0;
  std::uint32_t word_ = 4;
  std::uint32_t words_[4] = {};
};

/// Fills with independent draws from U(-bound, bound).
void fill_uniform(std::span<float> values, float bound, const StreamKey& key);

/// Fills with independent draws from N(0, deviation^2) (Box-Muller).
void fill_normal(std::span<float> values, float deviation, const StreamKey& key);

}  // namespace comigs
