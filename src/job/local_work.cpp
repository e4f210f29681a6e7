#include "comigs/job/local_work.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace comigs::job {

namespace {

bool trains_on_validation(const config::Config& config) {
  return config.method.train_on == config::TrainOn::train_and_validation;
}

}  // namespace

std::int64_t train_tokens(const config::User& user, const data::UserShards& shards) {
  const std::int64_t all = shards.train.tokens;
  const std::int64_t budget = user.train_tokens > 0 ? user.train_tokens : all;
  // A share such as 0.29 lies a little below what is meant: 0.29 of 400 is 116.
  constexpr double rounding = 1e-6;
  const auto share =
      static_cast<std::int64_t>(std::floor(user.train_share * static_cast<double>(all) + rounding));
  return std::min({all, budget, share});
}

std::int64_t expert_tokens(const config::Config& config, const data::Manifest& manifest, std::size_t user) {
  const data::UserShards& shards = manifest.users.at(user);
  return train_tokens(config.users.at(user), shards) +
         (trains_on_validation(config) ? shards.validation.tokens : 0);
}

std::int64_t evaluation_sequences(const config::User& user) {
  constexpr std::int64_t most = 32;
  return user.memory > 0.0 ? std::min(most, user.micro_batch_sequences) : most;
}

data::UserData open_user(const config::Config& config, const data::Manifest& manifest, std::size_t user) {
  data::UserData data = data::open_user(manifest, static_cast<std::int64_t>(user));
  data.train = data.train.leading(train_tokens(config.users.at(user), manifest.users.at(user)));
  return data;
}

std::vector<data::TokenShard> expert_texts(const config::Config& config, const data::UserData& own) {
  std::vector<data::TokenShard> texts = {own.train};
  if (trains_on_validation(config)) texts.push_back(own.validation);
  return texts;
}

train::Texts texts(const federation::Method& method, const config::Config& config,
                   const data::Manifest& manifest, std::size_t user, const data::UserData& own) {
  train::Texts texts;
  for (std::size_t u = 0; u < config.users.size(); ++u) {
    if (u != user && !method.rule.every_step) continue;
    // Opening reads a whole shard: its digest and its tokens are checked.
    const data::UserData data = u == user ? own : open_user(config, manifest, u);
    std::ranges::move(expert_texts(config, data), std::back_inserter(texts.experts));
    texts.routers.push_back(method.router_data == federation::RouterData::validation ? data.validation
                                                                                     : data.train);
  }
  return texts;
}

train::LocalPlan local_plan(const federation::Method& method, const config::Config& config,
                            std::size_t user) {
  const bool one_model = method.rule.every_step;
  const auto index = static_cast<std::int64_t>(user), users = static_cast<std::int64_t>(config.users.size());
  return {.router_training = method.router_training,
          .batch = one_model ? data::Share{.index = index, .of = users} : data::Share{},
          .method = config.method,
          .optimiser = config.optimiser,
          .user = config.users.at(user),
          .seed = config.run.seed,
          .rounds = config.run.rounds,
          .gate_warmup_rounds = federation::warms_up(method, config.method) &&
                                        method.experts.value_or(config.users.at(user).experts) > 1
                                    ? config.method.gate_warmup_rounds
                                    : 0,
          .user_index = one_model ? shared_user : static_cast<std::uint32_t>(user)};
}

}  // namespace comigs::job
