#include "comigs/model/architecture.hpp"

#include <functional>
#include <numeric>

namespace comigs::model {

std::int64_t WeightSpec::count() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace comigs::model
