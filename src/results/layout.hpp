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

/// The numbers of a round in one row, so that all arrays grow at once: they are views of this one. It lies
/// with what is measured, as measured times are among its numbers.
constexpr const char* rows_path = "/time/rows/values";
/// Where an array's numbers lie in it.
struct RowPart {
  std::string path;  ///< of the array, group/name
  std::uint64_t first = 0, count = 0;
};
/// Of every array that has rounds, in the order of the row; the first is the round's number.
[[nodiscard]] std::vector<RowPart> row_parts(const RunDescription& run, const RoundShape& shape);

/// Makes the rows in an empty file, before anything else: what says how many there are is in its first page.
void lay_out_rows(io::hdf5::Group root, const RunDescription& run, const RoundShape& shape);
/// Lays out the rest: attributes, coordinates, and arrays without rounds.
void lay_out(io::hdf5::Group root, const RunDescription& run, const RoundShape& shape);

/// Writes down in every view how long it is. Most readers see that in the rows; a few, such as HDF5's
/// `H5LTread_dataset`, do not look. For a file that will not grow, in a step of its own: it changes many
/// pages.
void settle_lengths(const io::hdf5::Group& root, const RunDescription& run, const RoundShape& shape);

/// Throws IoError where an array is not what `lay_out` and the rows since have made: rows could not be added.
void check_laid_out(const io::hdf5::Group& root, const RunDescription& run, const RoundShape& shape);

}  // namespace comigs::results
