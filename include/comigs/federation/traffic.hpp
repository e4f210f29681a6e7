// What users send: payload in bytes that a rank hands to MPI. Aggregations count by it, and so does who
// reckons a run before it begins.
#pragma once

#include <cstdint>

#include "comigs/comm/reduction.hpp"
#include "comigs/config/config.hpp"

namespace comigs::federation {

/// How a run adds up.
[[nodiscard]] comm::Sums sums(const config::Run& run);

/// Of so many numbers as they are.
[[nodiscard]] std::int64_t bytes_of_numbers(std::int64_t count);
/// Of a sum, or another reduction by columns, of so many numbers.
[[nodiscard]] std::int64_t bytes_of_reduction(std::int64_t count, comm::Sums sums);

}  // namespace comigs::federation
