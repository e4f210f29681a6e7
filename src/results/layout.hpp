// The arrays of results.h5 and what describes them.
#pragma once

#include "comigs/io/hdf5.hpp"
#include "comigs/results/results_file.hpp"

namespace comigs::results {

/// Lays an empty file out: attributes, coordinates, and arrays without rounds.
void lay_out(io::hdf5::Group root, const RunDescription& run, const RoundShape& shape);

}  // namespace comigs::results
