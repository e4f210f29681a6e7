// Whether a configuration, a data set and a base model go together.
#pragma once

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/model/architecture.hpp"
#include "comigs/model/precision.hpp"

namespace comigs::job {

/// Throws ConfigError if the number of ranks is not the number of users.
void check_users(const data::Manifest& manifest, std::int64_t ranks);

/// Whether tokens of a vocabulary of this size can be those of the base model in folder `base`: no more than
/// its embedding has rows, no fewer than its tokeniser has entries, or, where it has none, than rows that are
/// padded to a round number. Throws DataError.
[[nodiscard]] bool fits(std::int64_t vocabulary, const std::string& base,
                        const model::Architecture& architecture);

/// Throws DataError if the tokens are not the base model's: its own tokenizer.json decides, where it has one,
/// and its embedding may have any number of rows beyond the vocabulary; else the rows may be padded to a
/// round number and no further. Throws ConfigError if a context is longer than its
/// positions.
void check_base(const config::Config& config, const data::Manifest& manifest,
                const model::Architecture& architecture);

/// Throws DataError if a split of the user is too short for what is to be done with it.
void check_shards(const config::User& user, const data::UserShards& shards);

/// The precision that frozen weights are kept in.
[[nodiscard]] c10::ScalarType stored_type(config::Precision precision);

inline constexpr double gib = 1024.0 * 1024.0 * 1024.0;

/// How many sequences of user `user`'s batch run at a time: as configured, or fewer where its `memory` asks
/// for it. Throws ConfigError if not even one fits.
[[nodiscard]] std::int64_t sequences_within_memory(const config::User& own, std::size_t user,
                                                   const model::Architecture& architecture,
                                                   const adapter::UserModel& user_model,
                                                   const model::Computation& computation);

/// The same on a device. Depends on the configuration, the base model and the kind of device (for bf16 also
/// on whether the CPU has matrix units) alone, not on how much memory is free: results do not change from run
/// to run.
[[nodiscard]] std::int64_t micro_batch_sequences(const config::Config& config, std::size_t user,
                                                 const model::Architecture& architecture,
                                                 const adapter::UserModel& user_model,
                                                 const c10::Device& device);

}  // namespace comigs::job
