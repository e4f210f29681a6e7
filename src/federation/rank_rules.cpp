#include "comigs/federation/rank_rules.hpp"

namespace comigs::federation {

std::vector<std::int64_t> ranks_of(const std::vector<adapter::UserModel>& users) {
  std::vector<std::int64_t> ranks;
  for (const adapter::UserModel& user : users) ranks.push_back(user.lora_rank);
  return ranks;
}

std::int64_t padded_count(std::span<const adapter::Widths> loras, std::int64_t rank) {
  std::int64_t count = 0;
  for (const adapter::Widths& lora : loras) count += rank * (lora.in + lora.out);
  return count;
}

}  // namespace comigs::federation
