// Checkpoints of a run, by all its ranks together.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/io/folder_lock.hpp"
#include "comigs/results/checkpoint.hpp"
#include "comigs/run/participation.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::run {

/// Writes sets of checkpoints and finds the one to go on from. Keeps references to what it is given.
class Checkpointer {
 public:
  /// `held`: rank 0's lock of the folder above `folder`; none elsewhere.
  Checkpointer(const comm::Communicator& world, std::filesystem::path folder, results::RunIdentity identity,
               results::RoundShape shape, adapter::Parameters& parameters, const train::LocalTrainer& trainer,
               Participation& participation, const io::FolderLock* held);

  /// Collective. Before anything is written: throws PeerError on every rank where sets lie there that are of
  /// another run or, unless the run resumes, of any.
  void all_refuse_others(config::Resume resume) const;

  /// Collective. Writes a complete set and keeps it and the one before. Throws PeerError on every rank where
  /// a rank cannot write; the sets before it stay.
  void all_write(const RoundProgress& progress, const UserRound& start);

  /// Collective. Brings parameters, moments, aggregation and participation to where the newest usable set has
  /// them, and returns the rest; nothing if there is none. A set that is damaged, incomplete or ahead of
  /// `recorded` rounds of results.h5 is told of and an older one is used.
  [[nodiscard]] std::optional<results::UserState> all_restore(std::int64_t recorded);

  /// Collective. Removes all sets: the run is complete.
  void all_remove();

 private:
  [[nodiscard]] std::optional<results::UserState> all_read(const std::filesystem::path& set,
                                                           std::int64_t recorded);
  /// Throws DataError where the run cannot be at such a place.
  void check(const std::filesystem::path& set, std::int64_t round, const results::UserState& state) const;
  /// Collective. What is wrong with users' states beside each other, on every rank; empty: nothing.
  [[nodiscard]] std::string all_compare(const results::UserState& state) const;
  void all_take(const results::UserState& state, const std::vector<std::vector<float>>& blocks);
  /// Collective. Does what changes the folder on rank 0, where that still holds it; else throws PeerError
  /// everywhere.
  void all_change(const std::function<void()>& change) const;

  const comm::Communicator& world_;
  std::filesystem::path folder_;
  results::RunIdentity identity_;
  results::RoundShape shape_;
  adapter::Parameters& parameters_;
  const train::LocalTrainer& trainer_;
  Participation& participation_;
  const io::FolderLock* held_;
};

}  // namespace comigs::run
