#include "comigs/run/attendance.hpp"

#include <algorithm>
#include <stdexcept>

namespace comigs::run {

void Attendance::drop(const std::vector<bool>& users, std::int64_t round) {
  std::vector<std::int64_t> gone = gone_;
  for (std::size_t user = 0; user < gone.size(); ++user)
    if (users.at(user)) gone[user] = std::min(gone[user], round);
  if (std::ranges::none_of(gone, [&](std::int64_t first) { return round < first; }))
    throw std::invalid_argument("no user would be left");
  gone_ = std::move(gone);
}

std::vector<std::size_t> Attendance::present(std::int64_t round) const {
  std::vector<std::size_t> users;
  for (std::size_t user = 0; user < gone_.size(); ++user)
    if (is_present(user, round)) users.push_back(user);
  return users;
}

}  // namespace comigs::run
