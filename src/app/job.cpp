#include "job.hpp"

#include "comigs/base/log.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/federation/budgets.hpp"
#include "comigs/federation/fit.hpp"
#include "comigs/federation/idle_options.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::app {

namespace {

Job settle(const config::Layered& settings, std::int64_t users) {
  Job job;
  job.config = config::resolve(settings, users);
  job.method = &federation::find_method(job.config.method.name);
  job.manifest = data::read_manifest(job.config.data.folder);
  federation::check_users(job.manifest, users);
  job.architecture = model::read_architecture(job.config.model.folder);
  federation::settle_experts(*job.method, job.config, job.architecture);
  federation::check_method(*job.method, job.config);
  if (const std::string limits = federation::limits_of_top_k(*job.method, job.config.users); !limits.empty())
    spdlog::info(limits);
  job.users = federation::user_models(*job.method, job.config.users);
  job.remark = federation::idle_options(*job.method, job.config, job.users, settings);
  federation::check_base(job.config, job.manifest, job.architecture);
  for (std::size_t user = 0; user < job.users.size(); ++user)
    federation::check_shards(job.config.users[user], job.manifest.users[user]);
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

}  // namespace comigs::app
