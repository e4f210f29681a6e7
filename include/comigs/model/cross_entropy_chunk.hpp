// How many tokens' logits are in memory at a time.
#pragma once

#include <algorithm>
#include <cstdint>

namespace comigs::model {

/// Of `tokens` in chunks of nearly one size, those of the largest chunk. At most 128 MiB of float32 logits:
/// from some hundred tokens on the products with the head run at full speed.
[[nodiscard]] inline std::int64_t tokens_of_chunk(std::int64_t tokens, std::int64_t vocabulary) {
  constexpr std::int64_t most_logits = std::int64_t{1} << 25;
  const std::int64_t most = std::max<std::int64_t>(64, most_logits / vocabulary);
  const std::int64_t chunks = std::max<std::int64_t>(1, (tokens + most - 1) / most);
  return (tokens + chunks - 1) / chunks;
}

}  // namespace comigs::model
