#include "comigs/job/micro_batches.hpp"

#include <fmt/format.h>

#include <cmath>

#include "comigs/adapter/footprint.hpp"
#include "comigs/base/error.hpp"

namespace comigs::job {

c10::ScalarType stored_type(config::Precision precision) {
  return precision == config::Precision::bf16 ? at::kBFloat16 : at::kFloat;
}

model::Computation computation(const config::Run& run, const c10::Device& device) {
  const c10::ScalarType stored = stored_type(run.precision);
  const c10::ScalarType computed = run.activations == config::Activations::automatic
                                       ? model::activation_type(stored, device)
                                   : run.activations == config::Activations::bf16 ? stored
                                                                                  : at::kFloat;
  return {.stored = stored, .computed = computed, .on_gpu = device.is_cuda()};
}

std::int64_t sequences_within_memory(const config::User& own, std::size_t user,
                                     const model::Architecture& architecture,
                                     const adapter::UserModel& user_model,
                                     const model::Computation& computation) {
  const std::int64_t most = own.sequences_at_a_time();
  if (own.memory == 0.0) return most;
  const auto needed = [&](std::int64_t sequences) {
    const adapter::Footprint taken =
        adapter::footprint(architecture, user_model, computation, sequences * own.context_tokens, sequences);
    return static_cast<double>(taken.total()) / gib;
  };
  // Parts of one size but for the last, as few as possible.
  for (std::int64_t parts = (own.batch_sequences + most - 1) / most; parts <= own.batch_sequences; ++parts) {
    const std::int64_t sequences = (own.batch_sequences + parts - 1) / parts;
    if (needed(sequences) <= own.memory) return sequences;
  }
  throw ConfigError(
      fmt::format("[user.{}] memory = {} GiB: a step of one sequence of {} tokens takes {:.5f} GiB; "
                  "expected at least that, or a smaller context_tokens",
                  user, own.memory, own.context_tokens, std::ceil(needed(1) * 1e5) / 1e5));
}

std::int64_t micro_batch_sequences(const config::Config& config, std::size_t user,
                                   const model::Architecture& architecture,
                                   const adapter::UserModel& user_model, const c10::Device& device) {
  return sequences_within_memory(config.users.at(user), user, architecture, user_model,
                                 computation(config.run, device));
}

}  // namespace comigs::job
