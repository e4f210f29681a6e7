// How fast this machine is at a user's steps.
#pragma once

#include <cstdint>

#include "comigs/adapter/parameters.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::train {

/// FLOP/s, by the count of adapter::flops.
struct Speed {
  double steps = 0.0, evaluation = 0.0;
};

/// Local. Runs a few expert steps' forward and backward passes and a few evaluations on random tokens, of
/// `sequences` sequences or as many as take a second or two.
[[nodiscard]] Speed measure_speed(const model::BaseModel& base, const adapter::UserModel& user_model,
                                  std::int64_t sequences, std::int64_t context);

}  // namespace comigs::train
