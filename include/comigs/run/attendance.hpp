// Which users take part in which round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace comigs::run {

/// Local, the same on every rank: at first all users are present in every round.
class Attendance {
 public:
  explicit Attendance(std::size_t users) : gone_(users, never) {}

  /// From `round` on these users [user] are not present. Throws std::invalid_argument where nobody would be
  /// left.
  void drop(const std::vector<bool>& users, std::int64_t round);

  [[nodiscard]] bool is_present(std::size_t user, std::int64_t round) const { return round < gone_.at(user); }
  /// The users who are present, rising.
  [[nodiscard]] std::vector<std::size_t> present(std::int64_t round) const;

 private:
  static constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> gone_;  ///< [user] the first round in which it is not present
};

}  // namespace comigs::run
