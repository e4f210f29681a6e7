// A job as all commands that look at one read it: settled before anything large is loaded.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/peft_adapter.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/job/examples.hpp"
#include "comigs/model/architecture.hpp"
#include "comigs/model/pruning_record.hpp"

namespace comigs::job {

struct Job {
  config::Config config;
  const federation::Method* method = nullptr;
  std::vector<adapter::UserModel> users;
  data::Manifest manifest;
  model::Architecture architecture;
  std::vector<UserExamples> examples;                ///< [user]; empty: the data set has none
  std::optional<model::PruningRecord> base_pruning;  ///< none: nothing says that the base is pruned
  std::string init_adapter_digest;                   ///< of the adapter that users begin as; empty: none
  std::string remark;  ///< on options that were given and have no effect; empty: there are none
};

/// Local. The job that the arguments describe for so many users, checked as far as can be without opening
/// shards or weights. Throws ConfigError, DataError.
[[nodiscard]] Job read_job(const std::vector<std::string>& arguments, std::int64_t users);

/// The same for as many users as its data set has.
[[nodiscard]] Job read_job(const std::vector<std::string>& arguments);

/// Local. The adapter that the job's users begin as; nothing where there is none. Throws DataError where it
/// is no more the one that the job was read with.
[[nodiscard]] std::optional<adapter::PeftAdapter> open_init_adapter(const Job& job);

/// The job's configuration with the micro-batches of these users as they fit their memory on the device.
/// Throws ConfigError where not even one sequence fits, for the first such user of all.
[[nodiscard]] config::Config with_micro_batches(const Job& job, std::span<const std::size_t> users,
                                                const c10::Device& device);

}  // namespace comigs::job
