// The device a rank computes on, from what was asked for and what there is.
#pragma once

#include "comigs/base/log.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/config.hpp"
#include "comigs/model/device.hpp"

namespace comigs::app {

/// For `--device auto` where no GPU is visible.
inline void warn_of_unused_gpu(const std::string& host) {
  if (const std::string why = model::why_no_gpu(); !why.empty())
    spdlog::warn("{} computes on the CPU although it has a GPU: {}; --device cpu says that it is meant", host,
                 why);
}

/// Sets LibTorch's threads to `threads`, or to the rank's share of cores if that is 0, and binds the rank's
/// GPU where one is to be used; a node's first rank warns where it has one that is not. First thing before
/// any other use of LibTorch. Throws ConfigError where a GPU is asked for and there is none.
inline c10::Device choose_device(config::DeviceChoice choice, std::int64_t threads,
                                 const comm::Placement& placement) {
  if (placement.oversubscribed && placement.local_rank == 0)
    spdlog::info("{} ranks share the cores of {}: there are more ranks than cores", placement.local_size,
                 placement.host);
  if (threads > placement.cores && placement.local_rank == 0)
    spdlog::warn(
        "--threads {}: more than the {} core{} that a rank has on {}; threads that wait for a core make "
        "it slower",
        threads, placement.cores, placement.cores == 1 ? "" : "s", placement.host);
  model::set_up_host(threads > 0 ? static_cast<int>(threads) : placement.cores);
  const bool automatic = choice == config::DeviceChoice::automatic;
  const bool gpu = choice == config::DeviceChoice::cuda || (automatic && model::visible_gpus() > 0);
  if (automatic && !gpu && placement.local_rank == 0) warn_of_unused_gpu(placement.host);
  return gpu ? model::bind_gpu(placement.local_rank) : c10::Device(c10::DeviceType::CPU);
}

}  // namespace comigs::app
