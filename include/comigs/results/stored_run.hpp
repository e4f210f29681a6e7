// The results.h5 of a run that has ended: what it recorded and trained, and what is added to it later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/io/folder_lock.hpp"
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

/// For one process, which holds the file's folder meanwhile.
class StoredRun {
 public:
  /// `place`: the run's folder, or its results file. Throws DataError where that cannot be read, ConfigError
  /// where another process writes into the folder.
  explicit StoredRun(const std::filesystem::path& place);

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] const RunRecord& record() const noexcept { return record_; }

  /// What the user had trained by the end of `round`: the tensors that `parameters` name, one after the
  /// other, into `block`, which holds just those. Throws DataError naming one that is missing or has another
  /// shape.
  void read_weights(std::int64_t round, std::size_t user, const std::vector<ParameterView>& parameters,
                    std::span<float> block) const;

  /// Writes tokens/<name> for each text, in the place of what was there under that name. All of them or,
  /// where it throws (IoError), none.
  void write_tokens(const std::vector<TokenRouting>& texts);

 private:
  std::filesystem::path path_;
  io::FolderLock lock_;
  RunRecord record_;
};

}  // namespace comigs::results
