#include "comigs/results/results_file.hpp"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "columns.hpp"
#include "comigs/base/error.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/hdf5.hpp"
#include "layout.hpp"
#include "rewrite.hpp"
#include "round_rows.hpp"

namespace comigs::results {

RunIdentity identity(const RunDescription& run) {
  RunIdentity identity{.configuration = run.configuration,
                       .data_digest = run.data_digest,
                       .base_digest = run.base_digest,
                       .init_adapter_digest = run.init_adapter_digest,
                       .base_architecture = run.base_architecture,
                       .activations = run.activations,
                       .sequences_at_a_time = run.sequences_at_a_time,
                       .users = {}};
  for (const UserDescription& user : run.users) identity.users.push_back(user.name);
  return identity;
}

RoundShape round_shape(const RunDescription& run) {
  // A run without experts (the base as it is) still has arrays for them, all NaN: a dimension cannot be
  // empty.
  RoundShape shape{.layers = run.layers,
                   .experts = 1,
                   .users = static_cast<std::int64_t>(run.users.size()),
                   .projections = static_cast<std::int64_t>(run.projections.size()),
                   .categories = static_cast<std::int64_t>(run.categories.size()),
                   .prompts = run.prompts,
                   .gated = run.gate_warmup_rounds.has_value()};
  for (const UserDescription& user : run.users) {
    shape.experts = std::max(shape.experts, user.experts);
  }
  return shape;
}

namespace {

template <class Value>
std::optional<std::size_t> length_of_list(const std::vector<Value>& values) {
  return values.size();
}
template <class Number>
std::optional<std::size_t> length_of_list(const Number& /*number*/) {
  return std::nullopt;
}

// Lists that a user need not have are empty; any other length is a mistake of the caller.
void check_row(UserRound row, std::size_t user, const UserDescription& described, const RoundShape& shape) {
  for (const Column& column : columns(shape)) {
    const std::optional<std::size_t> found =
        std::visit([](const auto* value) { return length_of_list(*value); }, column.place(row));
    const std::uint64_t expected = product(user_extent(column, described, shape));
    if (found && *found != 0 && *found != expected)
      throw std::invalid_argument(
          fmt::format("user {}'s record of the round has {} values of '{}'; {} were expected", user, *found,
                      column.arrays.front().path, expected));
  }
}

void check_factor(const ParameterView& factor, std::size_t user, std::int64_t experts,
                  const RoundShape& shape) {
  const bool inside = factor.layer >= 0 && factor.layer < shape.layers &&
                      (factor.role == "expert" ? factor.expert >= 0 && factor.expert < experts
                                               : factor.expert == -1 && !factor.role.empty());
  if (!inside || factor.rows <= 0 || factor.columns <= 0 || factor.data == nullptr || factor.name.empty()) {
    throw std::invalid_argument(
        fmt::format("user {}'s factor '{}' of layer {}, expert {} ({} x {}) cannot be", user, factor.name,
                    factor.layer, factor.expert, factor.rows, factor.columns));
  }
}

std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

// About the most that is added to the file: the weights, and room for so many rows.
std::uint64_t most_growth_bytes(const std::vector<std::vector<ParameterView>>& factors, std::uint64_t rows,
                                std::uint64_t row_length) {
  constexpr std::uint64_t slack = 1 << 20, factor_overhead = 4096, most_for_rows = 1 << 26;
  std::uint64_t bytes = slack + std::min(rows * row_length * sizeof(double), most_for_rows);
  for (const auto& of_user : factors) {
    for (const ParameterView& factor : of_user) {
      bytes += static_cast<std::uint64_t>(factor.rows * factor.columns) * sizeof(float) + factor_overhead;
    }
  }
  return bytes;
}

}  // namespace

ResultsFile::ResultsFile(std::filesystem::path path, RunDescription run, Existing existing,
                         const io::FolderLock* held)
    : path_(std::move(path)),
      lock_(held != nullptr ? held : &own_lock_.emplace(folder_of(path_))),
      run_(std::move(run)),
      shape_(round_shape(run_)) {
  if (run_.users.empty() || shape_.layers < 1) {
    throw std::invalid_argument("a results file needs at least one user and one layer");
  }
  if (exists(path_) && existing == Existing::go_on) {
    found_ = read_run_record(path_);
    last_round_ = found_->rounds;
    io::remove_stale_temporaries(path_);
    return;
  }
  if (exists(path_)) {
    throw ConfigError(
        fmt::format("'{}' is there already and would be lost; choose another output folder or remove it",
                    path_.string()));
  }
  io::remove_stale_temporaries(path_);
  io::AtomicFile next(path_);
  io::hdf5::File file = io::hdf5::File::create(next.temporary_path());
  lay_out_rows(file.root(), run_, shape_);
  file.close();
  // The rest as rounds will be written: what changes later then lies in one page each.
  io::GrowingFile laid_out(next.temporary_path());
  laid_out.begin(0, false);
  io::hdf5::File rest = io::hdf5::File::open(laid_out);
  lay_out(rest.root(), run_, shape_);
  rest.close();
  laid_out.commit();
  next.commit();
}

void ResultsFile::check_found() const {
  if (found_->schema_version != schema_version) {
    if (last_round_ >= run_.rounds) return;  // nothing will be added
    throw ConfigError(
        fmt::format("'{}' has the layout of another version of comigs (schema_version {}, expected {}) and "
                    "cannot "
                    "be gone on with; finish the run with that version, or choose another output folder",
                    path_.string(), found_->schema_version, schema_version));
  }
  try {
    check_laid_out(io::hdf5::File::open_to_read(path_).root(), run_, shape_);
  } catch (const IoError& error) {
    throw DataError(
        fmt::format("{}: not the results of a run that can go on: {}", path_.string(), error.what()));
  }
}

void ResultsFile::note_resumption(bool moved) {
  constexpr std::uint64_t most_growth = 1 << 18;
  std::vector<std::string> history = found_.value().history;
  const bool same = !history.empty() && computed_by(history.back()) == run_.computed_by;
  if (!same) {
    history.push_back(history_entry(last_round_ + 1, run_.computed_by));
  }
  if (same && !moved) {
    return;
  }
  lock_->check();
  rewrite(path_, most_growth, [&](io::hdf5::File& file) {
    io::hdf5::Group root = file.root();
    root.set_attribute("history", history);
    if (!moved) {
      return;
    }
    root.set_attribute("configuration", run_.configuration);
    root.set_attribute("base_model", run_.base_model);
  });
}

void ResultsFile::discard_empty() {
  if (found_ || last_round_ >= 0) return;
  lock_->check();
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

bool ResultsFile::exists(const std::filesystem::path& path) {
  return std::filesystem::exists(std::filesystem::symlink_status(path));
}

void ResultsFile::check(const std::vector<UserRound>& rows) const {
  if (rows.size() != run_.users.size()) {
    throw std::invalid_argument(
        fmt::format("a round of {} records was given; the run has {} users", rows.size(), run_.users.size()));
  }
  const std::int64_t round = round_with_weights_.value_or(rows[0].round);
  for (std::size_t user = 0; user < rows.size(); ++user) {
    if (rows[user].round != round || rows[user].round <= last_round_) {
      throw std::invalid_argument(
          fmt::format("user {} brings round {} beside round {}; the last one written is {}", user,
                      rows[user].round, round, last_round_));
    }
    check_row(rows[user], user, run_.users[user], shape_);
  }
}

void ResultsFile::begin_step(std::int64_t round, const std::vector<std::vector<ParameterView>>& factors) {
  lock_->check();
  if (!growing_) growing_.emplace(path_);
  const std::vector<RowPart> parts = row_parts(run_, shape_);
  const std::int64_t rows = last_round_ < 0 ? run_.rounds + 1 : 1;
  growing_->begin(
      most_growth_bytes(factors, static_cast<std::uint64_t>(rows), parts.back().first + parts.back().count),
      round >= run_.rounds);
}

void ResultsFile::change(const std::function<void(const io::hdf5::Group& root)>& add) {
  try {
    io::hdf5::File file = io::hdf5::File::open(*growing_);
    add(file.root());
    file.close();
  } catch (...) {
    growing_->discard();
    round_with_weights_.reset();
    throw;
  }
}

void ResultsFile::write_weights(std::int64_t round, const std::vector<std::vector<ParameterView>>& factors) {
  if (factors.size() != run_.users.size() || round <= last_round_) {
    throw std::invalid_argument(
        fmt::format("factors of {} users in round {} were given; the run has {} users, and the last round "
                    "written is {}",
                    factors.size(), round, run_.users.size(), last_round_));
  }
  for (std::size_t user = 0; user < factors.size(); ++user) {
    for (const ParameterView& factor : factors[user]) {
      check_factor(factor, user, run_.users[user].experts, shape_);
    }
  }
  begin_step(round, factors);
  change([&](const io::hdf5::Group& root) { results::write_weights(root.open_group("/"), round, factors); });
  round_with_weights_ = round;
}

void ResultsFile::commit() {
  try {
    growing_->commit();
  } catch (...) {
    growing_->discard();
    throw;
  }
}

void ResultsFile::write_round(const std::vector<UserRound>& rows) {
  check(rows);
  const std::int64_t round = rows.front().round;
  if (!round_with_weights_) begin_step(round, {});
  change([&](const io::hdf5::Group& root) { append_row(root, run_, shape_, rows); });
  round_with_weights_.reset();
  commit();
  last_round_ = round;
  if (round < run_.rounds) return;
  begin_step(round, {});
  change([&](const io::hdf5::Group& root) { settle_lengths(root, run_, shape_); });
  commit();
}

}  // namespace comigs::results
