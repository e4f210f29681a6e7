// Checkpoints: what a run needs to go on as if it had never stopped. A set is a folder with a file of each
// user and, written last, a manifest; without a manifest it is no set.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/results/run_record.hpp"
#include "comigs/results/user_round.hpp"

namespace comigs::results {

/// Where one user's run stands, beside its blocks of numbers.
struct UserStanding {
  RoundProgress progress;
  UserRound start;                  ///< its round 0
  std::int64_t ranks_in_use = 0;    ///< of the experts
  std::int64_t participates = 1;    ///< 0: it has dropped out
  std::vector<double> aggregation;  ///< what the aggregation rule keeps
};

/// One block of float32 numbers, in memory that the caller keeps.
struct StateBlock {
  std::string name;
  std::span<float> values;
};

/// What the manifest says of a user's file.
struct CheckpointPart {
  std::uint64_t bytes = 0;
  std::string sha256;
  [[nodiscard]] bool operator==(const CheckpointPart&) const = default;
};

struct CheckpointManifest {
  RunIdentity identity;
  std::int64_t round = 0;             ///< that was under way, or is finished in it
  std::vector<CheckpointPart> parts;  ///< [user]
};

/// Writes user `user`'s file of the set, atomically and safely on disk; makes the set's folder. Throws
/// IoError.
CheckpointPart write_part(const std::filesystem::path& set, std::size_t user, const UserStanding& state,
                          std::span<const StateBlock> blocks, const RoundShape& shape);
/// Completes the set. Throws IoError.
void write_manifest(const std::filesystem::path& set, const CheckpointManifest& manifest);

/// The folder for the next set after those in `checkpoints`, complete or not: 000001, 000002, ... Numbers
/// that others have taken are left out.
[[nodiscard]] std::filesystem::path next_set(const std::filesystem::path& checkpoints);
/// The complete sets, newest first: folders of such names in which nobody's checkpoint lies are none.
[[nodiscard]] std::vector<std::filesystem::path> complete_sets(const std::filesystem::path& checkpoints);
/// Removes the set's files; what else lies in its folder stays, and then the folder.
void remove_set(const std::filesystem::path& set);
/// Removes all sets but the newest `count` complete ones.
void keep_newest_sets(const std::filesystem::path& checkpoints, std::size_t count);

/// Throws DataError where the manifest is unreadable, damaged or not one.
[[nodiscard]] CheckpointManifest read_manifest(const std::filesystem::path& set);
/// Reads user `user`'s file into `blocks`. Throws DataError, with the blocks in any state, where the file is
/// not, byte for byte, the one that the manifest means, or holds other blocks.
[[nodiscard]] UserStanding read_part(const std::filesystem::path& set, std::size_t user,
                                     const CheckpointPart& part, std::span<const StateBlock> blocks,
                                     const RoundShape& shape);

/// What is told of a user's file without its run.
struct PartSummary {
  Stage stage = Stage::training;
  std::int64_t steps = 0;                                    ///< expert steps of the round that are done
  std::vector<std::pair<std::string, std::int64_t>> blocks;  ///< names, and how many float32 numbers
};
/// Throws DataError where the file is not the one that the manifest means.
[[nodiscard]] PartSummary summarise_part(const std::filesystem::path& set, std::size_t user,
                                         const CheckpointPart& part);

}  // namespace comigs::results
