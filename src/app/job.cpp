#include "job.hpp"

#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/federation/fit.hpp"

namespace comigs::app {

Job read_job(const std::vector<std::string>& arguments, std::int64_t users) {
  Job job;
  job.config = config::resolve(config::parse(arguments), users);
  job.method = &federation::find_method(job.config.method.name);
  federation::check_method(*job.method, job.config);
  job.users = federation::user_models(*job.method, job.config.users);
  job.manifest = data::read_manifest(job.config.data.folder);
  federation::check_users(job.manifest, users);
  job.architecture = model::read_architecture(job.config.model.folder);
  federation::check_base(job.config, job.manifest, job.architecture);
  for (std::size_t user = 0; user < job.users.size(); ++user)
    federation::check_shards(job.config.users[user], job.manifest.users[user]);
  if (job.method->gate == model::Gate::none) job.config.run.rounds = 0;
  return job;
}

void all_compare(const comm::Communicator& world, const Job& job) {
  const std::vector<std::string> digests = world.all_gather(config::digest(job.config) + job.manifest.digest);
  comm::all_agree(world, [&] {
    for (std::size_t rank = 1; rank < digests.size(); ++rank)
      if (digests[rank] != digests[0])
        throw ConfigError(
            fmt::format("rank {} reads another configuration or manifest than rank 0; are the files the same "
                        "on all nodes?",
                        rank));
  });
}

}  // namespace comigs::app
