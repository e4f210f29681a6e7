#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

comm::Sums sums(const config::Run& run) {
  if (run.communication == config::Precision::bf16) return comm::Sums::bf16;
  return run.reproducible ? comm::Sums::rank_order : comm::Sums::any_order;
}

std::int64_t bytes_of_numbers(std::int64_t count) { return count * static_cast<std::int64_t>(sizeof(float)); }

std::int64_t bytes_of_reduction(std::int64_t count, comm::Sums sums) {
  return sums == comm::Sums::bf16 ? count * 2 : bytes_of_numbers(count);
}

}  // namespace comigs::federation
