// How many weights of a linear map become zero.
#pragma once

#include <cstdint>

namespace comigs::model {

/// How many go: a share, or, where `of` > 0, `zeros` of each `of` consecutive inputs of an output: zeros, not
/// weights that stay. Of equal scores the first goes; counts are exact, where the reference codes of Wanda
/// and SparseGPT let all ties and one more go.
struct Sparsity {
  double share = 0.0;  ///< in [0, 1)
  std::int64_t zeros = 0, of = 0;
};

}  // namespace comigs::model
