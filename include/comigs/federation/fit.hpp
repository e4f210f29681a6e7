// Whether a configuration, a data set and a base model go together.
#pragma once

#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::federation {

/// Throws ConfigError if the number of ranks is not the number of users.
void check_users(const data::Manifest& manifest, std::int64_t ranks);

/// Whether tokens of a vocabulary of this size can be the base model's: it may be padded to a round number,
/// but where it is larger, they mean something else.
[[nodiscard]] bool fits(std::int64_t vocabulary, const model::Architecture& architecture);

/// Throws DataError if the tokens are not the base model's, ConfigError if a context is longer than its
/// positions.
void check_base(const config::Config& config, const data::Manifest& manifest,
                const model::Architecture& architecture);

/// Throws DataError if a split of the user is too short for what is to be done with it.
void check_shards(const config::User& user, const data::UserShards& shards);

}  // namespace comigs::federation
