// How many sequences of a batch run at a time, as they fit a user's memory.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>

#include "comigs/adapter/layout.hpp"
#include "comigs/config/config.hpp"
#include "comigs/model/architecture.hpp"
#include "comigs/model/precision.hpp"

namespace comigs::job {

/// The precision that frozen weights are kept in.
[[nodiscard]] c10::ScalarType stored_type(config::Precision precision);

/// How a run's model is computed on a device: activations as configured, or as suits the device where they
/// are automatic.
[[nodiscard]] model::Computation computation(const config::Run& run, const c10::Device& device);

inline constexpr double gib = 1024.0 * 1024.0 * 1024.0;

/// How many sequences of user `user`'s batch run at a time: as configured, or fewer where its `memory` asks
/// for it. Throws ConfigError if not even one fits.
[[nodiscard]] std::int64_t sequences_within_memory(const config::User& own, std::size_t user,
                                                   const model::Architecture& architecture,
                                                   const adapter::UserModel& user_model,
                                                   const model::Computation& computation);

/// The same on a device. Depends on the configuration, the base model and the kind of device (for bf16 also
/// on whether the CPU is fast in it) alone, not on how much memory is free: results do not change from run
/// to run.
[[nodiscard]] std::int64_t micro_batch_sequences(const config::Config& config, std::size_t user,
                                                 const model::Architecture& architecture,
                                                 const adapter::UserModel& user_model,
                                                 const c10::Device& device);

}  // namespace comigs::job
