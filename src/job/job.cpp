#include "comigs/job/job.hpp"

#include <algorithm>

#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/job/budgets.hpp"
#include "comigs/job/checks.hpp"
#include "comigs/job/idle_options.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::job {

namespace {

// So that what is wrong with the adapter is told of before anything large is loaded.
std::string checked_init_adapter(const Job& job) {
  const std::string& folder = job.config.model.init_adapter;
  if (folder.empty()) return {};
  if (!std::ranges::all_of(job.users, &adapter::PeftAdapter::may_begin))
    throw ConfigError(fmt::format(
        "[model] init_adapter = {}: method '{}' trains nothing that could begin as it; the methods "
        "that do can have rounds = 0 too",
        folder, job.method->name));
  const adapter::PeftAdapter found(folder, job.architecture);
  for (std::size_t user = 0; user < job.users.size(); ++user)
    found.check_fits(job.architecture, job.users[user], fmt::format("user {}", job.manifest.users[user].name),
                     fmt::format("[user.{}]", user));
  return found.digest();
}

Job settle(const config::Layered& settings, std::int64_t users) {
  Job job;
  job.config = config::resolve(settings, users);
  job.method = &federation::find_method(job.config.method.name);
  job.manifest = data::read_manifest(job.config.data.folder);
  check_users(job.manifest, users);
  job.architecture = model::read_architecture(job.config.model.folder);
  if (!job.config.optimiser.weight_decay)
    job.config.optimiser.weight_decay = job.method->adapter.weight_decay;
  job.base_pruning = model::read_pruning(job.config.model.folder, job.architecture);
  settle_experts(*job.method, job.config, job.architecture);
  federation::check_method(*job.method, job.config);
  if (const std::string limits = federation::limits_of_top_k(*job.method, job.config.users); !limits.empty())
    spdlog::info(limits);
  job.users = federation::user_models(*job.method, job.config.users);
  job.remark = idle_options(*job.method, job.config, job.users, settings);
  check_base(job.config, job.manifest, job.architecture);
  check_prompts(job.config, job.users, job.architecture);
  for (std::size_t user = 0; user < job.users.size(); ++user)
    check_shards(job.config.users[user], job.manifest.users[user]);
  if (!job.manifest.categories.empty())
    for (std::size_t user = 0; user < job.users.size(); ++user)
      job.examples.push_back(examples_of(job.config, job.manifest, user));
  check_gates(*job.method, job.config, job.manifest, job.users);
  job.init_adapter_digest = checked_init_adapter(job);
  if (job.method->gate == adapter::Gate::none) job.config.run.rounds = 0;
  return job;
}

// As many as the data set has; where none is given, resolving says so.
std::int64_t users_of(const config::Layered& settings) {
  const std::string folder = config::data_folder(settings);
  return folder.empty() ? 1 : static_cast<std::int64_t>(data::read_manifest(folder).users.size());
}

}  // namespace

Job read_job(const std::vector<std::string>& arguments, std::int64_t users) {
  return settle(config::parse(arguments), users);
}

Job read_job(const std::vector<std::string>& arguments) {
  const config::Layered settings = config::parse(arguments);
  return settle(settings, users_of(settings));
}

std::optional<adapter::PeftAdapter> open_init_adapter(const Job& job) {
  if (job.init_adapter_digest.empty()) return std::nullopt;
  const std::string& folder = job.config.model.init_adapter;
  std::optional<adapter::PeftAdapter> found(std::in_place, folder, job.architecture);
  if (found->digest() != job.init_adapter_digest)
    throw DataError(fmt::format("the adapter in {} changed while it was read", folder));
  return found;
}

config::Config with_micro_batches(const Job& job, std::span<const std::size_t> users,
                                  const c10::Device& device) {
  const auto sequences = [&](std::size_t user) {
    return micro_batch_sequences(job.config, user, job.architecture, job.users[user], device);
  };
  config::Config config = job.config;
  try {
    for (const std::size_t user : users) config.users[user].micro_batch_sequences = sequences(user);
  } catch (const ConfigError&) {
    // All ranks with too little name the first such user, so that there is one message.
    for (std::size_t user = 0; user < job.users.size(); ++user) (void)sequences(user);
    throw;
  }
  return config;
}

}  // namespace comigs::job
