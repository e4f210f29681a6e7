// The arrays of results.h5 and what describes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comigs/io/hdf5.hpp"
#include "comigs/results/results_file.hpp"

namespace comigs::results {

/// Of what `lay_out` makes.
constexpr std::int64_t schema_version = 2;

/// The numbers of a round in one row, so that all arrays grow at once: they are views of this one. It lies with
/// what is measured, as measured times are among its numbers.
constexpr const char* rows_path = "/time/rows/values";
/// Where an array's numbers lie in it.
struct Columns {
  std::string path;  ///< of the array, group/name
  std::uint64_t first = 0, count = 0;
};
/// Of every array that has rounds, in the order of the row; the first is the round's number.
[[nodiscard]] std::vector<Columns> row_columns(const RunDescription& run, const RoundShape& shape);

/// Lays an empty file out: attributes, coordinates, and arrays without rounds.
void lay_out(io::hdf5::Group root, const RunDescription& run, const RoundShape& shape);

/// Throws IoError where an array is not what `lay_out` and the rows since have made: rows could not be added.
void check_laid_out(const io::hdf5::Group& root, const RunDescription& run, const RoundShape& shape);

}  // namespace comigs::results
