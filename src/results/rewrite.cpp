#include "rewrite.hpp"

#include "comigs/io/atomic_file.hpp"

namespace comigs::results {

void rewrite(const std::filesystem::path& path, std::uint64_t growth_bytes,
             const std::function<void(io::hdf5::File& file)>& change) {
  io::AtomicFile next(path);
  next.copy_from(path);
  // HDF5 does not survive a full disk well: what it will write has its room before it starts.
  next.reserve(std::filesystem::file_size(next.temporary_path()) + growth_bytes);
  io::hdf5::File file = io::hdf5::File::open(next.temporary_path());
  change(file);
  file.close();
  next.commit();
}

}  // namespace comigs::results
