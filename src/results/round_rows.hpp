// How the users' records of a round become a row of the file, and the stored factors groups of it.
#pragma once

#include <span>
#include <vector>

#include "comigs/io/hdf5.hpp"
#include "comigs/results/results_file.hpp"

namespace comigs::results {

/// Adds a row to all arrays that have rounds, and fills `before_aggregation` where the records hold it.
void append_row(const io::hdf5::Group& root, const RunDescription& run, const RoundShape& shape,
                const std::vector<UserRound>& rounds);

/// Writes expert/weights/<round>/user_<i>/layer_<l>/expert_<e>/<name>.
void write_weights(io::hdf5::Group root, std::int64_t round,
                   const std::vector<std::vector<ParameterView>>& parameters);

/// Reads what `write_weights` wrote of a user: `parameters` one after the other into `block`. Throws IoError
/// naming an array that is missing or has another shape.
void read_weights(const io::hdf5::Group& root, std::int64_t round, std::size_t user,
                  const std::vector<ParameterView>& parameters, std::span<float> block);

}  // namespace comigs::results
