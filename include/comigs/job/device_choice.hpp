// The device a rank computes on, from what was asked for and what there is.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "comigs/comm/placement.hpp"
#include "comigs/config/config.hpp"

namespace comigs::job {

/// For `--device auto` where no GPU is visible.
void warn_of_unused_gpu(const std::string& host);

/// Sets LibTorch's threads to `threads`, or to the rank's share of cores if that is 0, and binds the rank's
/// GPU where one is to be used; a node's first rank warns where it has one that is not. First thing before
/// any other use of LibTorch. Local. Throws ConfigError where a GPU is asked for and there is none.
[[nodiscard]] c10::Device choose_device(config::DeviceChoice choice, std::int64_t threads,
                                        const comm::Placement& placement);

}  // namespace comigs::job
