// The table that results.h5 is made of: a row for each thing that a user has to say about a round. The block
// that ranks exchange and checkpoints keep, the arrays of the file, their checks and their rows all derive
// from it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/io/hdf5.hpp"
#include "comigs/results/user_round.hpp"

namespace comigs::results {

/// Where a UserRound keeps it: a number, what was measured on a split, or a list.
using Place = std::variant<std::int64_t*, double*, Evaluation*, std::vector<float>*, std::vector<double>*>;

/// An array that shows it.
struct Shown {
  std::string path;  ///< group/name
  io::hdf5::Type type;
  std::string units, long_name;
  double (*of)(const Evaluation&) = nullptr;  ///< which of an evaluation's numbers
};

struct Column {
  Place (*place)(UserRound&);
  std::vector<Shown> arrays;
  std::vector<std::string> dimensions = {};  ///< of a user's list
  bool each_round = true;                    ///< false: arrays keep the last value that there was
};

/// Those of a run of this shape, in the order in which the file shows its arrays. `train_tokens_evaluated`:
/// see RunDescription.
[[nodiscard]] std::vector<Column> columns(const RoundShape& shape,
                                          const std::string& train_tokens_evaluated = {});

/// How long a dimension is, but for the round's.
[[nodiscard]] std::uint64_t length_of(const std::string& dimension, const RoundShape& shape);
[[nodiscard]] std::vector<std::uint64_t> extent_of(const std::vector<std::string>& dimensions,
                                                   const RoundShape& shape);
/// Of one user's part of an array: it has its own number of experts.
[[nodiscard]] std::vector<std::uint64_t> user_extent(const Column& column, const UserDescription& user,
                                                     RoundShape shape);
[[nodiscard]] std::uint64_t product(std::span<const std::uint64_t> extent);

}  // namespace comigs::results
