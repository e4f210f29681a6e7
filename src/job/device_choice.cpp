#include "comigs/job/device_choice.hpp"

#include "comigs/base/log.hpp"
#include "comigs/model/device.hpp"

namespace comigs::job {

void warn_of_unused_gpu(const std::string& host) {
  if (const std::string why = model::why_no_gpu(); !why.empty())
    spdlog::warn("{} computes on the CPU although it has a GPU: {}; --device cpu says that it is meant", host,
                 why);
}

c10::Device choose_device(config::DeviceChoice choice, std::int64_t threads,
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

}  // namespace comigs::job
