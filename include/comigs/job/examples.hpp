// How many examples users have of each category.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"

namespace comigs::job {

/// [category] each.
struct UserExamples {
  std::vector<std::int64_t> train;  ///< of the part that the user may use
  std::vector<std::int64_t> test;
  std::vector<std::int64_t> test_tokens;  ///< of responses
  std::int64_t trained_on = 0;            ///< by expert steps: `train`, and validation where they see it too
};

/// Of a data set that has categories, from the splits' indices. Throws DataError.
[[nodiscard]] UserExamples examples_of(const config::Config& config, const data::Manifest& manifest,
                                       std::size_t user);

}  // namespace comigs::job
