#include "comigs/results/stored_run.hpp"

#include "comigs/base/error.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/hdf5.hpp"
#include "rewrite.hpp"
#include "round_rows.hpp"
#include "tokens.hpp"

namespace comigs::results {
namespace {

namespace fs = std::filesystem;

fs::path results_file(const fs::path& place) {
  std::error_code error;
  const fs::path file = fs::is_directory(place, error) ? place / "results.h5" : place;
  if (!fs::is_regular_file(file, error)) {
    throw DataError(
        fmt::format("{}: no such file, expected a run's folder or its results.h5", file.string()));
  }
  // A link stays one: what is written goes where it leads.
  return fs::is_symlink(fs::symlink_status(file, error)) ? fs::canonical(file) : file;
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

}  // namespace

StoredRun::StoredRun(const fs::path& place)
    : path_(results_file(place)), lock_(folder_of(path_)), record_(read_run_record(path_)) {}

void StoredRun::read_weights(std::int64_t round, std::size_t user,
                             const std::vector<ParameterView>& parameters, std::span<float> block) const {
  try {
    const io::hdf5::File file = io::hdf5::File::open_to_read(path_);
    results::read_weights(file.root(), round, user, parameters, block);
  } catch (const IoError& error) {
    throw DataError(fmt::format("{}: {}", path_.string(), error.what()));
  }
}

void StoredRun::write_tokens(const std::vector<TokenRouting>& texts) {
  lock_.check();
  io::remove_stale_temporaries(path_);
  rewrite(path_, most_growth_bytes(texts), [&](io::hdf5::File& file) {
    for (const TokenRouting& text : texts) {
      results::write_tokens(file.root(), record_.shape, text);
    }
  });
}

}  // namespace comigs::results
