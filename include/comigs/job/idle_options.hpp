// Options that a job gives although nothing comes of them with its method.
#pragma once

#include <string>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/federation/method.hpp"

namespace comigs::job {

/// One line that names those of the `given` options that have no effect for any user they were given for,
/// each with the reason; empty: there are none. Options that would contradict the method are refused
/// elsewhere
/// (`check_method`).
[[nodiscard]] std::string idle_options(const federation::Method& method, const config::Config& config,
                                       const std::vector<adapter::UserModel>& users,
                                       const config::Layered& given);

}  // namespace comigs::job
