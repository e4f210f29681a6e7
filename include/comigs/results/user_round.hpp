// A user's round as a block of numbers of fixed length, which ranks can exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comigs/base/records.hpp"

namespace comigs::results {

/// What decides how many numbers a round takes; the same on every rank.
struct RoundShape {
  std::int64_t layers = 0;
  std::int64_t experts = 0;  ///< the most that any user has
  std::int64_t users = 0;
  std::int64_t projections = 2;  ///< that an expert has in a layer
};

/// How many numbers `encode` gives.
[[nodiscard]] std::size_t block_length(const RoundShape& shape);

/// The record as `block_length(shape)` numbers; shorter vectors are padded. Integers are exact up to 2^53.
/// Throws std::invalid_argument where a vector of the record is longer than the shape allows.
[[nodiscard]] std::vector<double> encode(const UserRound& round, const RoundShape& shape);

/// The record that `encode` was given, bit for bit. Throws std::invalid_argument where the block cannot be
/// one.
[[nodiscard]] UserRound decode(std::span<const double> block, const RoundShape& shape);

}  // namespace comigs::results
