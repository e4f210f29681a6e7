#include "comigs/run/roster.hpp"

#include <fmt/format.h>

#include <numeric>
#include <stdexcept>

namespace comigs::run {

Roster::Roster(const comm::Communicator& world, std::size_t users)
    : world_(world), users_(users), each_(users / static_cast<std::size_t>(world.size())) {
  if (each_ * static_cast<std::size_t>(world.size()) != users || users == 0)
    throw std::invalid_argument(
        fmt::format("{} users, expected as many for each of {} ranks", users, world.size()));
  std::iota(users_.begin(), users_.end(), std::size_t{0});
}

int Roster::rank_of(std::size_t user) const { return static_cast<int>(users_.at(user) / each_); }

std::span<const std::size_t> Roster::users_of(int rank) const {
  return std::span(users_).subspan(static_cast<std::size_t>(rank) * each_, each_);
}

// Ranks serve users in their order: one rank's blocks after the other's are all users' in theirs.
std::vector<double> Roster::all_gather(std::span<const double> own) const { return world_.all_gather(own); }

std::vector<std::int64_t> Roster::all_gather(std::span<const std::int64_t> own) const {
  return world_.all_gather(own);
}

std::vector<std::string> Roster::all_gather(std::span<const std::string> own) const {
  std::vector<std::string> texts(users());
  for (std::size_t turn = 0; turn < each_; ++turn) {
    std::vector<std::string> of_turn = world_.all_gather(own[turn]);
    for (int rank = 0; rank < world_.size(); ++rank)
      texts[users_of(rank)[turn]] = std::move(of_turn[static_cast<std::size_t>(rank)]);
  }
  return texts;
}

std::vector<std::vector<float>> Roster::all_gather_to_first(
    std::span<const std::span<const float>> own) const {
  std::vector<std::vector<float>> blocks(world_.is_first() ? users() : 0);
  for (std::size_t turn = 0; turn < each_; ++turn) {
    std::vector<std::vector<float>> of_turn = world_.all_gather_to_first(own[turn]);
    for (int rank = 0; world_.is_first() && rank < world_.size(); ++rank)
      blocks[users_of(rank)[turn]] = std::move(of_turn[static_cast<std::size_t>(rank)]);
  }
  return blocks;
}

}  // namespace comigs::run
