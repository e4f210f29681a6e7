// What a method and a configuration give one user to do between two aggregations: texts and a plan.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::job {

/// How many leading tokens of its training split a user may use (train_tokens, train_share).
[[nodiscard]] std::int64_t train_tokens(const config::User& user, const data::UserShards& shards);

/// How many tokens its expert steps draw from: those, and its validation split where experts train on it too.
[[nodiscard]] std::int64_t expert_tokens(const config::Config& config, const data::Manifest& manifest,
                                         std::size_t user);

/// How many sequences its evaluations run at a time, with micro-batches as they fit its memory: not more than
/// memory allows a training step, which needs more for each.
[[nodiscard]] std::int64_t evaluation_sequences(const config::User& user);

/// The user's three splits, the training split cut to what the user may use. Throws DataError.
[[nodiscard]] data::UserData open_user(const config::Config& config, const data::Manifest& manifest,
                                       std::size_t user);

/// What its expert steps learn from: its training split, and its validation split where that is trained on.
[[nodiscard]] std::vector<data::TokenShard> expert_texts(const config::Config& config,
                                                         const data::UserData& own);

/// The texts of the user's steps, from its `own` data; for `centralized` those of all users, whose data is
/// then opened too. Throws DataError.
[[nodiscard]] train::Texts texts(const federation::Method& method, const config::Config& config,
                                 const data::Manifest& manifest, std::size_t user, const data::UserData& own);

[[nodiscard]] train::LocalPlan local_plan(const federation::Method& method, const config::Config& config,
                                          std::size_t user);

}  // namespace comigs::job
