// results.h5: what a run found, round by round.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/io/folder_lock.hpp"
#include "comigs/io/growing_file.hpp"
#include "comigs/results/run_record.hpp"
#include "comigs/results/user_round.hpp"

namespace comigs::io::hdf5 {
class Group;
}

namespace comigs::results {

/// What the whole file says about the run: its root attributes, and what every user had.
struct RunDescription {
  std::string title, program_version, git_commit;
  std::string created;        ///< UTC, ISO 8601
  std::string configuration;  ///< the resolved one, as text
  std::string method, data_set;
  std::string data_digest;  ///< SHA-256 of the data set's manifest
  std::string base_model;
  std::string base_digest;          ///< SHA-256 of the base model's weights
  std::string base_pruning;         ///< the text of its comigs-pruning.json; empty: it has none
  std::string init_adapter_digest;  ///< see RunIdentity
  std::string base_architecture, activations, sequences_at_a_time;  ///< see RunIdentity
  std::int64_t seed = 0;
  std::vector<std::string> library_versions;  ///< "Open MPI 4.1.4", ...; HDF5's own is added
  std::vector<std::string> computed_by;       ///< see `history_entry`
  std::string train_tokens_evaluated =
      "the whole training split, after the round's aggregation";  ///< on which tokens train perplexity is
                                                                  ///< measured
  std::vector<UserDescription> users;
  std::vector<std::string> categories = {};  ///< of the data set's examples; empty: plain text
  std::string kind = {};                     ///< of adapter: what is trained
  bool prompts = false;                      ///< experts are groups of prompts
  std::optional<std::int64_t> gate_warmup_rounds = std::nullopt;  ///< of a gate by sequence; nothing: none
  std::string gate_targets = {};                                  ///< of its warm-up; "none" without one
  std::int64_t layers = 0;
  std::vector<std::string> projections = {"up", "down"};  ///< that an expert has in a layer
  std::int64_t rounds = 0;  ///< that it will have; there is room for their rows from the first one on
};

[[nodiscard]] RunIdentity identity(const RunDescription& run);

/// What decides the length of the run's rounds.
[[nodiscard]] RoundShape round_shape(const RunDescription& run);

/// The file at `path`, which is at any moment complete and readable, by whoever opens it or has it open; a
/// round adds to it what the round has, however large it is. For one process of the run. Throws IoError where
/// writing fails; the file then is as it was. Arrays and dimensions are those of the documented layout, for
/// h5py, xarray, netCDF and others.
class ResultsFile {
 public:
  /// What is done with a file that is there already.
  enum class Existing { refuse, go_on };

  /// Creates the file without rounds, or goes on with one that is there; whether that is of the same run is
  /// for the caller to see (`found`). Throws ConfigError where there is one that is refused or another
  /// process writes into its folder, DataError where one cannot be read. `held`: the lock of the file's
  /// folder, which outlives this; none: the file takes it itself.
  ResultsFile(std::filesystem::path path, RunDescription run, Existing existing = Existing::refuse,
              const io::FolderLock* held = nullptr);

  [[nodiscard]] static bool exists(const std::filesystem::path& path);
  /// Of the arrays: at least one expert, even where no user has any.
  [[nodiscard]] const RoundShape& shape() const noexcept { return shape_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// What a file said that was there already; nothing where it was created here.
  [[nodiscard]] const std::optional<RunRecord>& found() const noexcept { return found_; }
  /// The last round that was written; -1: none yet.
  [[nodiscard]] std::int64_t rounds() const noexcept { return last_round_; }
  /// Throws DataError where a file that was there cannot take this run's next rounds, ConfigError where it is
  /// of another version's layout.
  void check_found() const;

  /// Where a file that was there goes on: adds to its history by what, if that is not as it was; where data
  /// or base have `moved`, the configuration names their new places. Throws IoError.
  void note_resumption(bool moved);

  /// Removes a file that this object has made and written no round into.
  void discard_empty();

  /// Writes what users have trained, to be there with the row of the round: `factors[i]` is user i's. Throws
  /// std::invalid_argument where sizes contradict the run.
  void write_weights(std::int64_t round, const std::vector<std::vector<ParameterView>>& factors);
  /// Adds a round; `rows[i]` is user i's. After the return a crash loses nothing of it. Throws
  /// std::invalid_argument where sizes contradict the run, IoError where the folder is no longer held.
  void write_round(const std::vector<UserRound>& rows);

 private:
  void check(const std::vector<UserRound>& rows) const;
  void begin_step(std::int64_t round, const std::vector<std::vector<ParameterView>>& factors);
  void change(const std::function<void(const io::hdf5::Group& root)>& add);
  void commit();

  std::filesystem::path path_;
  std::optional<io::FolderLock> own_lock_;
  const io::FolderLock* lock_;  ///< of the file's folder: rounds are added to what this run wrote before
  RunDescription run_;
  RoundShape shape_;
  std::optional<RunRecord> found_;
  std::int64_t last_round_ = -1;
  std::optional<io::GrowingFile> growing_;          ///< from the first write on
  std::optional<std::int64_t> round_with_weights_;  ///< whose row is to come
};

}  // namespace comigs::results
