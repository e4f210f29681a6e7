// The arrays of results.h5 and what describes them.
#pragma once

#include "comigs/io/hdf5.hpp"
#include "comigs/results/results_file.hpp"

namespace comigs::results {

/// Lays an empty file out: attributes, coordinates, and arrays without rounds.
void lay_out(io::hdf5::Group root, const RunDescription& run, const RoundShape& shape);

/// Throws IoError where an array is not what `lay_out` and the rows since have made: rows could not be added.
void check_laid_out(const io::hdf5::Group& root, const RunDescription& run, const RoundShape& shape);

}  // namespace comigs::results
