// How many tokens' logits are in memory at a time.
#pragma once

#include <algorithm>
#include <cstdint>

namespace comigs::model {

/// From a row of logits to the next, in numbers: rows of an odd vocabulary would begin at addresses that
/// matrix units do not read fast.
[[nodiscard]] inline std::int64_t logit_stride(std::int64_t vocabulary) {
  constexpr std::int64_t together = 64;
  return (vocabulary + together - 1) / together * together;
}

/// Of `tokens` in chunks of nearly one size, those of the largest chunk. On the host at most 128 MiB of
/// float32 logits: from some hundred tokens on the products with the head run at full speed. A GPU's many
/// processors want more rows.
[[nodiscard]] inline std::int64_t tokens_of_chunk(std::int64_t tokens, std::int64_t vocabulary, bool on_gpu) {
  constexpr std::int64_t most_logits = std::int64_t{1} << 25, most_on_gpu = 4096;
  const std::int64_t most = on_gpu ? most_on_gpu : std::max<std::int64_t>(64, most_logits / vocabulary);
  const std::int64_t chunks = std::max<std::int64_t>(1, (tokens + most - 1) / most);
  return (tokens + chunks - 1) / chunks;
}

}  // namespace comigs::model
