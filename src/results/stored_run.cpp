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
  return file;
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

RunRecord read_record(const fs::path& path) {
  try {
    const io::hdf5::File file = io::hdf5::File::open_to_read(path);
    const io::hdf5::Group root = file.root();
    const auto length = [&](const char* name) {
      const std::vector<std::uint64_t> extent = root.open_dataset(name).extent();
      if (extent.size() != 1) throw IoError(fmt::format("'/{}' is no list", name));
      return static_cast<std::int64_t>(extent[0]);
    };
    return {
        .configuration = root.text_attribute("configuration"),
        .data_digest = root.text_attribute("data_digest"),
        .base_digest = root.text_attribute("base_digest"),
        .users = root.open_dataset("user").read_texts(),
        .rounds = length("round") - 1,
        .shape = {.layers = length("layer"), .experts = length("routing/expert"), .users = length("user")}};
  } catch (const IoError& error) {
    throw DataError(fmt::format("{}: not the results of a run: {}", path.string(), error.what()));
  }
}

}  // namespace

StoredRun::StoredRun(const fs::path& place)
    : path_(results_file(place)), lock_(folder_of(path_)), record_(read_record(path_)) {}

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
  io::remove_stale_temporaries(path_);
  rewrite(path_, most_growth_bytes(texts), [&](io::hdf5::File& file) {
    for (const TokenRouting& text : texts) {
      results::write_tokens(file.root(), record_.shape, text);
    }
  });
}

}  // namespace comigs::results
