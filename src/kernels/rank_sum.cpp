#include "rank_sum_element.hpp"

namespace comigs::kernels {

void rank_sum(const RankSum& sum) {
  for (std::int64_t i = 0; i < sum.count; ++i) rank_sum_element(sum, i);
}

}  // namespace comigs::kernels
