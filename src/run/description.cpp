#include "comigs/run/description.hpp"
#include "comigs/adapter/kind.hpp"

#include <fmt/chrono.h>
#include <fmt/ranges.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <span>
#include <vector>

#include "comigs/base/log.hpp"
#include "comigs/base/version.hpp"
#include "comigs/comm/session.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/value.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/precision.hpp"
#include "comigs/run/identity.hpp"

namespace comigs::run {

namespace {

results::UserDescription describe_user(const job::Job& job, std::size_t user) {
  const data::UserShards& shards = job.manifest.users[user];
  const adapter::UserModel& model = job.users[user];
  return {.name = shards.name,
          .host = {},
          .device = {},
          .experts = model.experts,
          .generalists = model.generalists,
          .expert_rank = model.rank_of_experts(),
          .attention_rank = model.rank_of_experts() > 0 ? model.rank_of_attention() : 0,
          .top_k = model.top_k,
          .train_tokens = job::train_tokens(job.config.users[user], shards),
          .validation_tokens = shards.validation.tokens,
          .test_tokens = shards.test.tokens};
}

// What only some runs have: examples, prompts, a gate by sequence.
void describe_further(results::RunDescription& run, const job::Job& job) {
  run.kind = job.method->adapter.name;
  run.categories = job.manifest.categories;
  for (std::size_t user = 0; user < job.examples.size(); ++user) {
    run.users[user].train_examples = job.examples[user].train;
    run.users[user].test_examples = job.examples[user].test;
    run.users[user].test_response_tokens = job.examples[user].test_tokens;
  }
  for (std::size_t user = 0; user < job.users.size(); ++user) {
    const adapter::UserModel& model = job.users[user];
    if (!model.trains_prompts()) continue;
    run.prompts = true;
    run.users[user].prompt_tokens = model.prompt_tokens;
    run.users[user].prompt_layer = static_cast<std::int64_t>(model.load(job.architecture).first_layer);
    if (!model.gated_by_sequence()) continue;
    run.users[user].gate_width = model.gate_width;
    run.gate_warmup_rounds = job::local_plan(*job.method, job.config, user).gate_warmup_rounds;
    run.gate_targets = run.gate_warmup_rounds == 0 ? "none" : config::print(job.config.method.gate_targets);
  }
}

std::string now() {
  const auto seconds = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

std::string train_tokens_evaluated(const std::optional<std::int64_t>& leading) {
  if (!leading) return "the batches of the round's expert steps, each before its update";
  const std::string all = "the whole training split";
  return (*leading > 0 ? fmt::format("the first {} tokens of the training split", *leading) : all) +
         ", after the round's aggregation";
}

// All that every rank knows alike.
results::RunDescription describe(const job::Job& job, const Surroundings& here) {
  results::RunDescription run{
      .title = fmt::format("{} on {}", job.method->name, job.manifest.name),
      .program_version = program_version,
      .git_commit = git_commit,
      .created = now(),
      .configuration = config::echo(job.config),
      .method = job.method->name,
      .data_set = job.manifest.name,
      .data_digest = job.manifest.digest,
      .base_model = job.config.model.folder,
      .base_digest = here.base_digest,
      .base_pruning = job.base_pruning ? job.base_pruning->text : std::string(),
      .init_adapter_digest = job.init_adapter_digest,
      .base_architecture = model::config_json(job.architecture),
      .activations = model::name_of(job::computation(job.config.run, here.device).computed),
      .sequences_at_a_time = {},
      .seed = static_cast<std::int64_t>(job.config.run.seed),
      .library_versions = {fmt::format("LibTorch {}", TORCH_VERSION), comm::library_version()},
      .computed_by = {},
      .train_tokens_evaluated = train_tokens_evaluated(job.config.run.train_evaluation_tokens),
      .users = {},
      .layers = job.architecture.layers,
      .projections = job.users.front().kind->projections(job.architecture),
      .rounds = job.config.run.rounds};
  for (std::size_t user = 0; user < job.users.size(); ++user) run.users.push_back(describe_user(job, user));
  describe_further(run, job);
  return run;
}

// Collective. This rank's text of each of its users, of every user.
std::vector<std::string> all_gather(const Roster& roster, const std::string& text) {
  return roster.all_gather(std::vector<std::string>(roster.own().size(), text));
}

// Collective.
void all_tell_unlike(const comm::Communicator& world, const Roster& roster, const std::string& own) {
  const std::vector<std::string> found = all_gather(roster, own);
  std::vector<std::string> unlike;
  for (std::size_t user = 1; user < found.size(); ++user)
    if (found[user] != found[0]) unlike.push_back(fmt::format("{} on {}", roster.name_of(user), found[user]));
  if (world.is_first() && !unlike.empty())
    spdlog::warn("unlike processors: {}, the others on {}; with other users on them the last bits may differ",
                 fmt::join(unlike, ", "), found[0]);
}

}  // namespace

results::RunDescription all_describe(const comm::Communicator& world, const Roster& roster,
                                     const job::Job& job, const Surroundings& here) {
  results::RunDescription run = describe(job, here);
  const std::string processor = model::processor(), device = model::describe(here.device);
  all_tell_unlike(world, roster, fmt::format("{}, {}", processor, fmt::join(run.library_versions, ", ")));
  const std::vector<std::string> hosts = all_gather(roster, here.placement.host),
                                 devices = all_gather(roster, device),
                                 on = all_gather(roster, device + ", " + processor);
  std::vector<std::int64_t> sequences;
  for (const std::size_t user : roster.own())
    sequences.push_back(here.config.users[user].sequences_at_a_time());
  run.sequences_at_a_time = fmt::format("{}", fmt::join(roster.all_gather(sequences), ", "));
  run.computed_by = computed_by(run.library_versions, on);
  for (std::size_t user = 0; user < run.users.size(); ++user) {
    run.users[user].host = hosts[user];
    run.users[user].device = devices[user];
  }
  return run;
}

}  // namespace comigs::run
