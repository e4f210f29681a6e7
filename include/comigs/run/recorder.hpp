// From ranks' records to results.h5 on rank 0.
#pragma once

#include <optional>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/results/results_file.hpp"
#include "comigs/run/roster.hpp"

namespace comigs::run {

/// Owns results.h5 on rank 0; elsewhere only sends.
class Recorder {
 public:
  /// Collective. Creates `path`, or, where `resume` has it so, goes on with what is there; all ranks pass
  /// what they know of the run, `users` alike everywhere. `held`: rank 0's lock of the folder, which outlives
  /// this; none elsewhere. Throws PeerError on every rank if the file is there and is not to be gone on with,
  /// is of another run, or cannot be made.
  Recorder(const comm::Communicator& world, const Roster& roster, const std::filesystem::path& path,
           const results::RunDescription& run, const model::Architecture& architecture,
           std::vector<adapter::UserModel> users, config::Resume resume, const io::FolderLock* held);

  /// The last round that the file had from the start; -1: none. The same on every rank.
  [[nodiscard]] std::int64_t recorded() const { return recorded_; }

  /// Collective. A run goes on: what the file had that is otherwise now without deciding the numbers (build,
  /// libraries, processors, folders) is told of and noted in it. Throws PeerError on every rank if that
  /// fails.
  void all_note_resumption();

  /// Local. Removes a file that this run has made and written nothing into: a run that failed before its
  /// first evaluation leaves nothing behind.
  void discard_empty();

  /// Collective. All users' records, on every rank.
  [[nodiscard]] std::vector<results::UserRound> all_gather(const results::UserRound& record) const;
  /// Collective. Writes a round's row, with all trained numbers if `parameters` is given, and returns all
  /// users' records on every rank. When it returns the round is safe on disk. A row that the file has already
  /// stays as it is. Adds to the record's seconds what was written since its last row was whole.
  std::vector<results::UserRound> all_write(results::UserRound& record,
                                            const adapter::Parameters* parameters);

 private:
  void all_write_weights(std::int64_t round, const adapter::Parameters& parameters);
  [[nodiscard]] std::vector<std::vector<float>> all_gather_blocks(
      const adapter::Parameters& parameters) const;

  const comm::Communicator& world_;
  const Roster& roster_;
  results::RunDescription run_;
  const model::Architecture& architecture_;
  std::vector<adapter::UserModel> users_;
  results::RoundShape shape_;
  std::optional<results::ResultsFile> file_;
  std::int64_t recorded_ = -1;
  double unrecorded_seconds_ = 0.0;  ///< of writing, since the last row was whole
};

}  // namespace comigs::run
