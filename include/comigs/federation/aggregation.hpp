// Averages of what users share, once a round.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/comm/communicator.hpp"
#include "comigs/comm/summation.hpp"
#include "comigs/model/parameters.hpp"

namespace comigs::federation {

/// A contiguous part of the block that a group of users holds in common.
struct SharedSlice {
  model::Slice slice;
  std::vector<std::int64_t> holders;  ///< users, rising
};

/// What user `user` shares with whom: attention LoRA with all (if the method shares it), generalist j with
/// all who hold one. Neighbouring parts of the block with the same holders are one slice; what nobody else
/// holds is left out.
[[nodiscard]] std::vector<SharedSlice> shared_slices(const std::vector<model::UserModel>& users,
                                                     std::int64_t user, const model::Parameters& parameters);

/// The uniform mean of each shared slice over its holders (Algorithm 1, first line; a user with one expert
/// takes part in the generalist's mean). Owns one sub-communicator for each set of holders, made once.
class Aggregation {
 public:
  /// Collective over `world`, one rank a user; `slices` is this rank's own.
  Aggregation(const comm::Communicator& world, const std::vector<model::UserModel>& users,
              std::vector<SharedSlice> slices, comm::Memory memory, bool rank_order);

  /// Collective. Replaces shared slices of the block by their means, the same bits for all holders.
  void all_aggregate(const model::Parameters& parameters);

  /// Payload that this rank hands to MPI in one aggregation.
  [[nodiscard]] std::int64_t bytes() const;
  /// This user's row of the mixing matrix [user]: with which weight each user's shared parameters enter its
  /// own.
  [[nodiscard]] std::vector<double> weights(std::int64_t user, std::int64_t users) const;
  [[nodiscard]] bool shares_anything() const { return !slices_.empty(); }

 private:
  struct Group {
    std::vector<std::int64_t> holders;
    comm::Communicator communicator;
  };
  std::vector<Group> groups_;
  std::vector<SharedSlice> slices_;
  comm::Summation summation_;
};

}  // namespace comigs::federation
