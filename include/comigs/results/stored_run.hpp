// The results.h5 of a run that has ended: what it recorded and trained, and what is added to it later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/io/folder_lock.hpp"
#include "comigs/io/hdf5.hpp"
#include "comigs/results/run_record.hpp"
#include "comigs/results/user_round.hpp"

namespace comigs::results {

/// How every user's model routed the tokens of a text.
struct TokenRouting {
  std::string name;   ///< of the group in tokens
  std::string owner;  ///< the user whose text it is; empty: nobody's
  std::vector<std::int64_t> ids;
  std::vector<std::string> texts;  ///< of the tokens
  std::vector<float> score;        ///< [user, token, layer, expert] gate weight; NaN: no such expert
};

/// On a user's splits, each after the last round in which it was measured.
struct LastPerplexities {
  double train = 0.0, validation = 0.0, test = 0.0;
};

/// What a process does with a run's file: reads it, beside whom it may, or adds to it as the only one.
enum class Access { read, add };

/// To be added to, the file's folder is held meanwhile.
class StoredRun {
 public:
  /// `place`: the run's folder, or its results file. Throws DataError where that cannot be read; to be added
  /// to, ConfigError where another process writes into the folder.
  explicit StoredRun(const std::filesystem::path& place, Access access = Access::add);

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] const RunRecord& record() const noexcept { return record_; }

  /// The last perplexities of every user on its own splits that were measured; NaN where none was. Throws
  /// DataError.
  [[nodiscard]] std::vector<LastPerplexities> last_perplexities() const;

  /// What the user had trained by the end of `round`: the tensors that `parameters` name, one after the
  /// other, into `block`, which holds just those. Throws DataError naming one that is missing or has another
  /// shape.
  void read_weights(std::int64_t round, std::size_t user, const std::vector<ParameterView>& parameters,
                    std::span<float> block) const;

  /// Writes tokens/<name> for each text, in the place of what was there under that name, to a file that is
  /// there to be added to. All of them or, where it throws (IoError), none.
  void write_tokens(const std::vector<TokenRouting>& texts);

 private:
  /// First apart (io/trial.hpp): HDF5 trusts what is damaged.
  void read(const std::function<void(const io::hdf5::Group&)>& reads) const;

  std::filesystem::path path_;
  std::optional<io::FolderLock> lock_;  ///< none: only read
  RunRecord record_;
};

}  // namespace comigs::results
