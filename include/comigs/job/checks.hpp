// Whether a configuration, a data set and a base model go together.
#pragma once

#include <vector>

#include "comigs/adapter/user_model.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::job {

/// Throws ConfigError if the number of ranks is not the number of users.
void check_users(const data::Manifest& manifest, std::int64_t ranks);

/// Whether tokens of a vocabulary of this size can be those of the base model in folder `base`: no more than
/// its embedding has rows, no fewer than its tokeniser has entries, or, where it has none, than rows that are
/// padded to a round number. Throws DataError.
[[nodiscard]] bool takes_vocabulary(std::int64_t vocabulary, const std::string& base,
                                    const model::Architecture& architecture);

/// Throws DataError if the tokens are not the base model's: its own tokenizer.json decides, where it has one,
/// and its embedding may have any number of rows beyond the vocabulary; else the rows may be padded to a
/// round number and no further. Throws ConfigError if a context is longer than its
/// positions.
void check_base(const config::Config& config, const data::Manifest& manifest,
                const model::Architecture& architecture);

/// Throws ConfigError if a user's prompts have no place: beyond the last layer, or more positions in front of
/// its context than the base model has.
void check_prompts(const config::Config& config, const std::vector<adapter::UserModel>& models,
                   const model::Architecture& architecture);

/// Throws ConfigError where a gate by sequence has no instructions to read, as in plain text, or cannot be
/// warmed up; and where averages go by examples that there are none of.
void check_gates(const federation::Method& method, const config::Config& config,
                 const data::Manifest& manifest, const std::vector<adapter::UserModel>& models);

/// Of a split of examples, each a sequence of its own: throws DataError if there is none, ConfigError if one
/// is longer than the context: nothing of a response is cut unsaid. `user`: whose it is; `option`: what was
/// said of the context, with its value. Of plain text nothing.
void check_examples(std::int64_t context_tokens, const std::string& option, const std::string& user,
                    const data::ShardDescription& split);

/// Throws DataError if a split of the user is too short for what is to be done with it; and as
/// `check_examples`.
void check_shards(const config::User& user, const data::UserShards& shards);

}  // namespace comigs::job
