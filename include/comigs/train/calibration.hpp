// How fast this machine is at a user's steps.
#pragma once

#include <cstdint>

#include "comigs/model/base_model.hpp"
#include "comigs/model/parameters.hpp"

namespace comigs::train {

/// FLOP/s, by the count of model::flops.
struct Speed {
  double steps = 0.0, evaluation = 0.0;
};

/// Local. Runs a few expert steps' forward and backward passes and a few evaluations on random tokens, of
/// `sequences` sequences or as many as take a second or two.
[[nodiscard]] Speed measure_speed(const model::BaseModel& base, const model::UserModel& user_model,
                                  std::int64_t sequences, std::int64_t context);

}  // namespace comigs::train
