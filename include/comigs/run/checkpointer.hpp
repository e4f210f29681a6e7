// Checkpoints of a run, by all its ranks together.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/io/folder_lock.hpp"
#include "comigs/results/checkpoint.hpp"
#include "comigs/run/attendance.hpp"
#include "comigs/run/present_aggregation.hpp"
#include "comigs/run/roster.hpp"
#include "comigs/run/seat.hpp"

namespace comigs::run {

/// Writes sets of checkpoints and finds the one to go on from. Keeps references to what it is given.
class Checkpointer {
 public:
  struct Setup {
    const comm::Communicator& world;
    const Roster& roster;
    Seat& seat;
    Attendance& attendance;
    PresentAggregation& aggregation;
  };

  /// `held`: rank 0's lock of the folder above `folder`; none elsewhere.
  Checkpointer(const Setup& setup, std::filesystem::path folder, results::RunIdentity identity,
               results::RoundShape shape, const io::FolderLock* held);

  /// Collective. Before anything is written: throws PeerError on every rank where sets lie there that are of
  /// another run or, unless the run resumes, of any.
  void all_refuse_others(config::Resume resume) const;

  /// Collective. Writes a complete set and keeps it and the one before. Throws PeerError on every rank where
  /// a rank cannot write; the sets before it stay.
  void all_write();

  /// Collective. Brings seat, attendance and aggregation to where the newest usable set has them; false if
  /// there is none. A set that is damaged, incomplete or ahead of `recorded` rounds of results.h5 is told of
  /// and an older one is used.
  [[nodiscard]] bool all_restore(std::int64_t recorded);

  /// Collective. Removes all sets: the run is complete.
  void all_remove();

 private:
  /// Collective. Whether all could read the set, and have taken it.
  [[nodiscard]] bool all_read(const std::filesystem::path& set, std::int64_t recorded);
  /// The user's state in the set. Throws DataError where it is not to be used.
  [[nodiscard]] UserState read(const std::filesystem::path& set, std::int64_t recorded) const;
  /// Throws DataError where the run cannot be at such a place.
  void check(const std::filesystem::path& set, std::int64_t round,
             const results::UserStanding& standing) const;
  /// Collective. What is wrong with users' standings beside each other, on every rank; empty: nothing.
  [[nodiscard]] std::string all_find_contradiction(const results::UserStanding& standing) const;
  void all_take(const UserState& state);
  /// Collective. Does what changes the folder on rank 0, where that still holds it; else throws PeerError
  /// everywhere.
  void all_change(const std::function<void()>& change) const;

  Setup setup_;
  std::filesystem::path folder_;
  results::RunIdentity identity_;
  results::RoundShape shape_;
  const io::FolderLock* held_;
};

}  // namespace comigs::run
