// A planned run as a person or a program reads it.
#pragma once

#include <string>

#include "comigs/job/planned.hpp"

namespace comigs::app {

[[nodiscard]] std::string plan_as_text(const job::Plan& plan);
/// One JSON object; seconds are null where they were not measured.
[[nodiscard]] std::string plan_as_json(const job::Plan& plan);

}  // namespace comigs::app
