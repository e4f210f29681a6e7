#include "comigs/finished/evaluations.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/job/checks.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/train/evaluation.hpp"

namespace comigs::finished {

namespace {

const data::ShardDescription& split_of(const data::UserShards& shards, config::Split split) {
  return split == config::Split::train        ? shards.train
         : split == config::Split::validation ? shards.validation
                                              : shards.test;
}

// What was evaluated already, of models and texts that several users have.
class Known {
 public:
  struct Model {
    adapter::UserModel look;
    std::string digest;  // of its numbers
    bool operator==(const Model&) const = default;
  };

  // What is known of the model on the text, which, where it has no key, is like no other; else from
  // `evaluate`.
  template <class Evaluate>
  const Evaluation& of(const Model& model, const std::string& key, Evaluate&& evaluate) {
    const auto same = std::ranges::find_if(
        found_, [&](const Found& one) { return !key.empty() && one.key == key && one.model == model; });
    if (same != found_.end()) return same->evaluation;
    return found_.emplace_back(model, key, evaluate()).evaluation;
  }

 private:
  struct Found {
    Model model;
    std::string key;
    Evaluation evaluation;
  };
  std::vector<Found> found_;
};

}  // namespace

Evaluations::Evaluations(const config::Evaluate& options)
    : chosen_(options.models),
      config_(settled(options)),
      manifest_(options.data.empty() ? chosen_.models.open_data() : data::read_manifest(options.data)),
      sequences_(options.micro_batch_sequences) {
  job::check_base(config_, manifest_, chosen_.models.architecture());
  for (std::size_t user = 0; user < manifest_.users.size(); ++user)
    texts_.push_back(open_text(options, user));
}

std::int64_t Evaluations::count() const {
  return static_cast<std::int64_t>(chosen_.chosen.size() * texts_.size());
}

// With the folder and the windows that were asked for.
config::Config Evaluations::settled(const config::Evaluate& options) const {
  const TrainedModels& models = chosen_.models;
  config::Config config = models.config();
  if (!options.data.empty()) config.data.folder = options.data;
  const std::int64_t positions = models.positions();
  if (options.context_tokens > positions)
    throw ConfigError(fmt::format("--context-tokens {}: the base model {} has {} positions for them",
                                  options.context_tokens, config.model.folder, positions));
  for (config::User& user : config.users) {
    if (!models.is_of_run()) user.context_tokens = std::min(user.context_tokens, positions);
    if (options.context_tokens > 0) user.context_tokens = options.context_tokens;
  }
  return config;
}

Evaluations::Text Evaluations::open_text(const config::Evaluate& options, std::size_t user) const {
  const data::UserShards& shards = manifest_.users[user];
  const data::ShardDescription& split = split_of(shards, options.split);
  data::require_tokens(split, 2, fmt::format("user {}", shards.name));
  for (const std::size_t model : chosen_.chosen) {
    const std::int64_t context = config_.users[model].context_tokens;
    const char* const said =
        options.context_tokens > 0 ? "--context-tokens {}" : "[user] context_tokens = {}";
    job::check_examples(context, fmt::format(fmt::runtime(said), context), shards.name, split);
  }
  const bool is_runs_own = chosen_.run && manifest_.digest == chosen_.run->record().identity.data_digest;
  std::int64_t tokens = options.tokens;
  if (tokens == 0 && is_runs_own && options.split == config::Split::train) tokens = leading_tokens(user);
  return {shards.name, data::TokenShard(split, manifest_.vocabulary), tokens};
}

// Of what its users trained on, which a run evaluates the beginning of where it is asked to.
std::int64_t Evaluations::leading_tokens(std::size_t user) const {
  const std::int64_t leading = config_.run.train_evaluation_tokens.value_or(0),
                     all = job::train_tokens(config_.users[user], manifest_.users[user]);
  return leading > 0 ? std::min(leading, all) : all;
}

std::vector<ModelEvaluation> Evaluations::run(const c10::Device& device,
                                              const std::function<void(const std::string&)>& done) const {
  const TrainedModels& models = chosen_.models;
  const auto base = models.load_base(device);
  std::vector<ModelEvaluation> found;
  Known known;
  for (const std::size_t model : chosen_.chosen) {
    const adapter::Parameters parameters = models.parameters(model, device);
    const Known::Model same{.look = parameters.user_model(), .digest = parameters.digest()};
    const std::int64_t context = config_.users[model].context_tokens,
                       sequences = sequences_ > 0 ? sequences_ : models.evaluation_sequences(model, device);
    for (const Text& text : texts_) {
      const train::EvaluationOptions options{
          .context = context, .sequences = sequences, .tokens = text.tokens, .stop = {}};
      const Evaluation& evaluation = known.of(same, train::evaluation_key(text.shard, options), [&] {
        return train::evaluate(*base, parameters, text.shard, options).evaluation;
      });
      found.push_back({models.names()[model], text.name, context, evaluation});
      done(text.name);
    }
  }
  return found;
}

}  // namespace comigs::finished
