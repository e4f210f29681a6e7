#include "comigs/results/stored_run.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/hdf5.hpp"
#include "comigs/io/trial.hpp"
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

// Of [round, user], for each user the last number that is one.
std::vector<double> last_row(const io::hdf5::Dataset& array, std::size_t users, std::uint64_t most_rounds) {
  const std::vector<std::uint64_t> extent = array.extent();
  if (extent.size() != 2 || extent[1] != users || extent[0] > most_rounds)
    throw IoError(fmt::format("perplexities have the extent [{}], expected [round, user] of {} users",
                              fmt::join(extent, ", "), users));
  std::vector<double> all(extent[0] * extent[1]), last(users, std::numeric_limits<double>::quiet_NaN());
  array.read(std::span(all));
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!std::isnan(all[i])) last[i % users] = all[i];
  return last;
}

}  // namespace

StoredRun::StoredRun(const fs::path& place, Access access) : path_(results_file(place)) {
  if (access == Access::add) lock_.emplace(folder_of(path_));
  record_ = read_run_record(path_);
}

void StoredRun::read(const std::function<void(const io::hdf5::Group&)>& reads) const {
  io::try_apart(path_, [&] { reads(io::hdf5::File::open_to_read(path_).root()); });
  try {
    reads(io::hdf5::File::open_to_read(path_).root());
  } catch (const IoError& error) {
    throw DataError(fmt::format("{}: {}", path_.string(), error.what()));
  }
}

void StoredRun::read_weights(std::int64_t round, std::size_t user,
                             const std::vector<ParameterView>& parameters, std::span<float> block) const {
  read([&](const io::hdf5::Group& root) { results::read_weights(root, round, user, parameters, block); });
}

std::vector<LastPerplexities> StoredRun::last_perplexities() const {
  const auto users = static_cast<std::size_t>(record_.shape.users);
  // Memory is taken only for what the file is large enough to hold.
  const std::uint64_t most_rounds = fs::file_size(path_) / sizeof(double) / std::max<std::size_t>(users, 1);
  std::vector<LastPerplexities> found(users);
  read([&](const io::hdf5::Group& root) {
    for (const auto& [split, member] : {std::pair("train", &LastPerplexities::train),
                                        std::pair("validation", &LastPerplexities::validation),
                                        std::pair("test", &LastPerplexities::test)}) {
      const std::vector<double> last =
          last_row(root.open_dataset(fmt::format("perplexity/{}", split)), users, most_rounds);
      for (std::size_t user = 0; user < users; ++user) found[user].*member = last[user];
    }
  });
  return found;
}

void StoredRun::write_tokens(const std::vector<TokenRouting>& texts) {
  lock_.value().check();
  io::remove_stale_temporaries(path_);
  rewrite(path_, most_growth_bytes(texts), [&](io::hdf5::File& file) {
    for (const TokenRouting& text : texts) {
      results::write_tokens(file.root(), record_.shape, text);
    }
  });
}

}  // namespace comigs::results
