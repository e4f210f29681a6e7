// Which rank serves which user: the only file of a run that knows both words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comigs/comm/communicator.hpp"

namespace comigs::run {

/// Who serves whom, the same on every rank, and what users have, gathered by user. Keeps a reference to the
/// world.
class Roster {
 public:
  /// Local. Deals users to ranks in their order, as many to each. Throws std::invalid_argument where they do
  /// not come out even.
  Roster(const comm::Communicator& world, std::size_t users);

  [[nodiscard]] std::size_t users() const { return users_.size(); }
  [[nodiscard]] int rank_of(std::size_t user) const;
  [[nodiscard]] std::span<const std::size_t> users_of(int rank) const;
  /// The users of this rank.
  [[nodiscard]] std::span<const std::size_t> own() const { return users_of(world_.rank()); }
  /// What messages call the rank that serves the user.
  [[nodiscard]] std::string name_of(std::size_t user) const { return world_.name_of(rank_of(user)); }

  /// Collective. All users' blocks in the order of users, on every rank. `own`: those of this rank's users,
  /// one after the other; all blocks have the same length.
  [[nodiscard]] std::vector<double> all_gather(std::span<const double> own) const;
  [[nodiscard]] std::vector<std::int64_t> all_gather(std::span<const std::int64_t> own) const;
  /// Collective. The text of user u at index u, on every rank. `own`: those of this rank's users.
  [[nodiscard]] std::vector<std::string> all_gather(std::span<const std::string> own) const;
  /// Collective. The numbers of user u at index u, on rank 0; empty elsewhere. `own`: those of this rank's
  /// users; lengths may differ.
  [[nodiscard]] std::vector<std::vector<float>> all_gather_to_first(
      std::span<const std::span<const float>> own) const;

 private:
  const comm::Communicator& world_;
  std::vector<std::size_t> users_;  ///< 0, 1, ...: those of a rank lie beside each other
  std::size_t each_;                ///< how many a rank serves
};

}  // namespace comigs::run
