// What a job will take, and what could be changed about it.
#pragma once

#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <vector>

#include "comigs/job/cost.hpp"
#include "comigs/job/job.hpp"

namespace comigs::job {

/// Where a job is reckoned for.
struct Place {
  c10::Device device = c10::Device(c10::DeviceType::CPU);
  bool visible = true;            ///< whether this process can compute there
  std::int64_t memory_bytes = 0;  ///< of the device; 0: not known
};

/// A job's costs as it is, and as it would be with other settings. Keeps a reference to the job.
class Reckoning {
 public:
  Reckoning(const Job& job, const Place& place) : job_(job), place_(place) {}

  /// Local. What does not fit is reckoned one sequence at a time. Throws DataError if the base's file is
  /// damaged.
  [[nodiscard]] std::vector<Cost> costs() const { return costs(job_.config); }

  /// What does not fit, each with an option that makes it fit where there is one.
  [[nodiscard]] std::vector<std::string> problems() const;

 private:
  /// Settings of which one may make a job fit, in the order in which they are preferred.
  struct Change {
    std::string options;
    config::Config config;
  };
  /// What some of a job takes of a limit that it has.
  struct Demand {
    std::string who, limit_is;
    double limit_bytes = 0.0;
    std::optional<std::size_t> user;  ///< none: all
    bool by_budget = false;           ///< the limit is the user's own `memory`
  };

  [[nodiscard]] std::vector<Cost> costs(const config::Config& config) const;
  [[nodiscard]] Cost cost(const config::Config& config, std::size_t user) const;
  [[nodiscard]] Cost least_cost(const config::Config& config, std::size_t user) const;
  [[nodiscard]] std::vector<Demand> demands() const;
  [[nodiscard]] double bytes(const Demand& demand, const config::Config& config) const;
  [[nodiscard]] Change with(const Change& from, const Demand& demand, const std::string& option,
                            std::int64_t config::User::*member, std::int64_t most) const;
  [[nodiscard]] std::vector<Change> changes(const Demand& demand) const;
  [[nodiscard]] std::size_t nodes(const Demand& demand) const;
  [[nodiscard]] std::string remedy(const Demand& demand) const;

  const Job& job_;
  Place place_;
};

}  // namespace comigs::job
