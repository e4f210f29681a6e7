#include "comigs/federation/fit.hpp"

#include <cmath>

#include "comigs/base/error.hpp"
#include "comigs/federation/local_work.hpp"
#include "comigs/model/footprint.hpp"

namespace comigs::federation {

void check_users(const data::Manifest& manifest, std::int64_t ranks) {
  const auto users = static_cast<std::int64_t>(manifest.users.size());
  if (ranks == users) return;
  std::vector<std::string> names;
  for (const data::UserShards& user : manifest.users) names.push_back(user.name);
  throw ConfigError(
      fmt::format("{} MPI rank{} for the {} user{} of data set '{}' ({}): one rank is one user, so start "
                  "with 'mpirun -n {}'",
                  ranks, ranks == 1 ? "" : "s", users, users == 1 ? "" : "s", manifest.name,
                  fmt::join(names, ", "), users));
}

bool fits(std::int64_t vocabulary, const model::Architecture& architecture) {
  constexpr std::int64_t padding = 128;
  return vocabulary <= architecture.vocabulary && architecture.vocabulary < vocabulary + padding;
}

void check_base(const config::Config& config, const data::Manifest& manifest,
                const model::Architecture& architecture) {
  if (!fits(manifest.vocabulary, architecture))
    throw DataError(
        fmt::format("{}: a vocabulary of {}, but data set {} was made with a tokeniser of {} entries; "
                    "prepare the data with "
                    "the base model's own tokeniser",
                    config.model.folder, architecture.vocabulary, config.data.folder, manifest.vocabulary));
  const std::filesystem::path tokeniser = std::filesystem::path(config.model.folder) / "tokenizer.json";
  std::error_code error;
  const bool has_one = std::filesystem::exists(tokeniser, error);
  if (has_one) data::check_tokeniser(manifest);
  if (has_one && !data::same_vocabulary(tokeniser, manifest.tokeniser))
    throw DataError(fmt::format(
        "{} is another tokeniser than data set {} was made with; prepare the data with the base model's own",
        tokeniser.string(), config.data.folder));
  for (std::size_t i = 0; i < config.users.size(); ++i)
    if (config.users[i].context_tokens > architecture.positions)
      throw ConfigError(fmt::format("[user.{}] context_tokens = {}, but the base model {} has {} positions",
                                    i, config.users[i].context_tokens, config.model.folder,
                                    architecture.positions));
}

void check_shards(const config::User& user, const data::UserShards& shards) {
  const std::string reason = fmt::format("user {}, context_tokens = {}", shards.name, user.context_tokens);
  data::ShardDescription used = shards.train;
  used.tokens = train_tokens(user, shards);
  const bool cut = used.tokens < shards.train.tokens;
  data::require_tokens(used, user.context_tokens + 1,
                       cut ? fmt::format("{}, train_tokens = {}, train_share = {}", reason, user.train_tokens,
                                         user.train_share)
                           : reason);
  data::require_tokens(shards.validation, user.context_tokens + 1, reason);
  data::require_tokens(shards.test, 2, reason);
}

c10::ScalarType stored_type(config::Precision precision) {
  return precision == config::Precision::bf16 ? at::kBFloat16 : at::kFloat;
}

std::int64_t sequences_within_memory(const config::User& own, std::size_t user,
                                     const model::Architecture& architecture,
                                     const model::UserModel& user_model,
                                     const model::Computation& computation) {
  const std::int64_t most = own.sequences_at_a_time();
  if (own.memory == 0.0) return most;
  const auto needed = [&](std::int64_t sequences) {
    const model::Footprint taken =
        model::footprint(architecture, user_model, computation, sequences * own.context_tokens);
    return static_cast<double>(taken.total()) / gib;
  };
  // Parts of one size but for the last, as few as possible.
  for (std::int64_t parts = (own.batch_sequences + most - 1) / most; parts <= own.batch_sequences; ++parts) {
    const std::int64_t sequences = (own.batch_sequences + parts - 1) / parts;
    if (needed(sequences) <= own.memory) return sequences;
  }
  throw ConfigError(
      fmt::format("[user.{}] memory = {} GiB: a step of one sequence of {} tokens takes {:.5f} GiB; "
                  "expected at least that, or a smaller context_tokens",
                  user, own.memory, own.context_tokens, std::ceil(needed(1) * 1e5) / 1e5));
}

std::int64_t micro_batch_sequences(const config::Config& config, std::size_t user,
                                   const model::Architecture& architecture,
                                   const model::UserModel& user_model, const c10::Device& device) {
  return sequences_within_memory(config.users.at(user), user, architecture, user_model,
                                 model::computation(stored_type(config.run.precision), device));
}

}  // namespace comigs::federation
