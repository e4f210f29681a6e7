// How a results file changes: as a whole, so that it is complete at any moment.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "comigs/io/hdf5.hpp"

namespace comigs::results {

/// Makes the next version of the file at `path` beside it, lets `change` work on it, and renames it over the
/// old one. `growth_bytes`: an upper bound of what `change` adds. Throws IoError and what `change` throws;
/// the file then is as it was.
void rewrite(const std::filesystem::path& path, std::uint64_t growth_bytes,
             const std::function<void(io::hdf5::File& file)>& change);

}  // namespace comigs::results
