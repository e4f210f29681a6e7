#include "comigs/job/checks.hpp"

#include <algorithm>
#include <iterator>

#include "comigs/base/error.hpp"
#include "comigs/data/vocabulary.hpp"
#include "comigs/job/local_work.hpp"

namespace comigs::job {

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

namespace {

constexpr std::int64_t most_padding = 128;  // rows of the embedding; where no tokeniser speaks for more

std::filesystem::path own_tokeniser(const std::string& base) {
  return std::filesystem::path(base) / "tokenizer.json";
}

bool has_tokeniser(const std::string& base) {
  std::error_code error;
  return std::filesystem::exists(own_tokeniser(base), error);
}

// The data's tokens are those of the base's own tokeniser.
void check_tokeniser(const std::string& base, const std::filesystem::path& own, const std::string& data,
                     const data::Manifest& manifest, std::int64_t rows) {
  const std::string difference = data::tokeniser_difference(own, manifest.tokeniser);
  if (!difference.empty())
    throw DataError(
        fmt::format("{} is another tokeniser than data set {} was made with ({}); prepare the data with the "
                    "base model's own",
                    own.string(), data, difference));
  if (manifest.vocabulary > rows)
    throw DataError(
        fmt::format("{}: a vocabulary of {}, but its tokenizer.json, with which data set {} was made, has {} "
                    "entries; resize the model with transformers: resize_token_embeddings({})",
                    base, rows, data, manifest.vocabulary, manifest.vocabulary));
}

// Without one, a vocabulary of another size tells that the tokens mean something else.
void check_vocabulary(const std::string& base, const std::string& data, std::int64_t vocabulary,
                      std::int64_t rows) {
  const bool is_too_small = vocabulary <= rows - most_padding;
  if (vocabulary <= rows && !is_too_small) return;
  throw DataError(fmt::format(
      "{}: a vocabulary of {}, but data set {} was made with a tokeniser of {} entries{}; prepare the data "
      "with the base model's own tokeniser{}",
      base, rows, data, vocabulary,
      is_too_small ? ", and there is no tokenizer.json beside the model that shows it to be the model's" : "",
      is_too_small ? ", or put that there if it is the same" : ""));
}

}  // namespace

bool takes_vocabulary(std::int64_t vocabulary, const std::string& base,
                      const model::Architecture& architecture) {
  const std::int64_t rows = architecture.vocabulary,
                     least = has_tokeniser(base) ? data::Vocabulary(own_tokeniser(base)).size()
                                                 : rows - most_padding + 1;
  return least <= vocabulary && vocabulary <= rows;
}

void check_base(const config::Config& config, const data::Manifest& manifest,
                const model::Architecture& architecture) {
  const std::string &base = config.model.folder, &folder = config.data.folder;
  if (has_tokeniser(base)) {
    data::check_tokeniser(manifest);
    check_tokeniser(base, own_tokeniser(base), folder, manifest, architecture.vocabulary);
  } else {
    check_vocabulary(base, folder, manifest.vocabulary, architecture.vocabulary);
  }
  for (std::size_t i = 0; i < config.users.size(); ++i)
    if (config.users[i].context_tokens > architecture.positions)
      throw ConfigError(fmt::format("[user.{}] context_tokens = {}, but the base model {} has {} positions",
                                    i, config.users[i].context_tokens, config.model.folder,
                                    architecture.positions));
}

void check_prompts(const config::Config& config, const std::vector<adapter::UserModel>& models,
                   const model::Architecture& architecture) {
  for (std::size_t i = 0; i < models.size(); ++i) {
    if (!models[i].trains_prompts()) continue;
    const std::int64_t layer = models[i].prompt_layer.value_or(0), m = models[i].prompt_tokens,
                       T = config.users[i].context_tokens;
    if (layer >= architecture.layers)
      throw ConfigError(fmt::format("[user.{}] prompt_layer = {}, but the base model {} has layers 0 to {}",
                                    i, layer, config.model.folder, architecture.layers - 1));
    if (m + T > architecture.positions)
      throw ConfigError(fmt::format(
          "[user.{}] prompt_tokens = {}, context_tokens = {}: {} positions, but the base model {} has {}", i,
          m, T, m + T, config.model.folder, architecture.positions));
  }
}

namespace {

// A group is to become a category's, or a cluster's.
void check_warmup(const config::Config& config, const data::Manifest& manifest,
                  const std::vector<adapter::UserModel>& models) {
  const std::int64_t W = config.method.gate_warmup_rounds;
  if (config.run.rounds == 0) return;
  const bool by_category = config.method.gate_targets == config::GateTargets::categories;
  for (std::size_t i = 0; i < models.size() && by_category; ++i)
    if (models[i].gated_by_sequence() && models[i].experts != std::ssize(manifest.categories))
      throw ConfigError(fmt::format(
          "[user.{}] experts = {}: the gate's warm-up tells the {} categories of data set '{}' apart, "
          "so that as many groups are expected; with [method] gate_targets = clusters or gate_warmup_rounds "
          "= 0 any number",
          i, models[i].experts, manifest.categories.size(), manifest.name));
  if (W >= config.run.rounds)
    throw ConfigError(fmt::format(
        "[method] gate_warmup_rounds = {}, but [run] rounds = {}: no round would be left to train prompts", W,
        config.run.rounds));
}

}  // namespace

void check_gates(const federation::Method& method, const config::Config& config,
                 const data::Manifest& manifest, const std::vector<adapter::UserModel>& models) {
  const bool has_examples = !manifest.categories.empty(),
             gated = std::ranges::any_of(models, &adapter::UserModel::gated_by_sequence);
  if (gated && !has_examples)
    throw ConfigError(
        fmt::format("method '{}' has a gate that reads instructions, but data set '{}' is plain text; "
                    "`python -m data_prep instructions` makes one of examples",
                    method.name, manifest.name));
  if (config.method.averaging == config::Averaging::examples && !has_examples)
    throw ConfigError(fmt::format(
        "[method] averaging = examples, but data set '{}' is plain text; expected uniform or tokens",
        manifest.name));
  if (gated && federation::warms_up(method, config.method)) check_warmup(config, manifest, models);
}

// Its last token is only predicted.
void check_examples(std::int64_t context_tokens, const std::string& option, const std::string& user,
                    const data::ShardDescription& split) {
  if (!split.examples) return;
  if (split.examples->count < 1)
    throw DataError(
        fmt::format("{}: no example, expected at least 1 (user {})", split.examples->file.string(), user));
  if (split.examples->longest > context_tokens + 1)
    throw ConfigError(
        fmt::format("{}, but an example of {} has {} tokens ({}); expected at least {}, or prepare the data "
                    "with --context {}",
                    option, user, split.examples->longest, split.examples->file.string(),
                    split.examples->longest - 1, context_tokens));
}

void check_shards(const config::User& user, const data::UserShards& shards) {
  const bool examples = shards.train.examples.has_value();
  for (const data::ShardDescription* split : {&shards.train, &shards.validation, &shards.test})
    check_examples(user.context_tokens, fmt::format("[user] context_tokens = {}", user.context_tokens),
                   shards.name, *split);
  const std::string reason = fmt::format("user {}, context_tokens = {}", shards.name, user.context_tokens);
  data::ShardDescription used = shards.train;
  used.tokens = train_tokens(user, shards);
  const bool cut = used.tokens < shards.train.tokens;
  data::require_tokens(used, examples ? shards.train.examples->longest : user.context_tokens + 1,
                       cut ? fmt::format("{}, train_tokens = {}, train_share = {}", reason, user.train_tokens,
                                         user.train_share)
                           : reason);
  if (examples) return;
  data::require_tokens(shards.validation, user.context_tokens + 1, reason);
  data::require_tokens(shards.test, 2, reason);
}

}  // namespace comigs::job
