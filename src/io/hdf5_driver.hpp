// How the HDF5 library reads and writes a GrowingFile.
#pragma once

#include "comigs/io/growing_file.hpp"
#include "hdf5_support.hpp"

namespace comigs::io::hdf5 {

/// Has files that are opened with `access` go through `file`.
void read_and_write_through(const Object& access, GrowingFile& file);

}  // namespace comigs::io::hdf5
