#include "comigs/federation/aggregation.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "comigs/model/device.hpp"

namespace comigs::federation {

namespace {

using Holders = std::vector<std::int64_t>;

Holders holders_of_attention(const std::vector<model::UserModel>& users) {
  Holders holders;
  for (std::size_t u = 0; u < users.size(); ++u)
    if (users[u].shared_attention) holders.push_back(static_cast<std::int64_t>(u));
  return holders;
}

Holders holders_of_generalist(const std::vector<model::UserModel>& users, std::int64_t generalist) {
  Holders holders;
  for (std::size_t u = 0; u < users.size(); ++u)
    if (generalist < users[u].generalists) holders.push_back(static_cast<std::int64_t>(u));
  return holders;
}

// Every set of two or more users that holds something in common, in an order that all ranks agree on.
std::set<Holders> all_groups(const std::vector<model::UserModel>& users) {
  std::set<Holders> groups = {holders_of_attention(users)};
  for (const model::UserModel& user : users)
    for (std::int64_t j = 0; j < user.generalists; ++j) groups.insert(holders_of_generalist(users, j));
  std::erase_if(groups, [](const Holders& holders) { return holders.size() < 2; });
  return groups;
}

bool contains(const Holders& holders, std::int64_t user) {
  return std::binary_search(holders.begin(), holders.end(), user);
}

}  // namespace

std::vector<SharedSlice> shared_slices(const std::vector<model::UserModel>& users, std::int64_t user,
                                       const model::Parameters& parameters) {
  std::vector<SharedSlice> slices;
  const auto add = [&](const model::Slice& slice, Holders holders) {
    if (holders.size() < 2 || slice.count == 0 || !contains(holders, user)) return;
    if (!slices.empty() && slices.back().holders == holders &&
        slices.back().slice.offset + slices.back().slice.count == slice.offset) {
      slices.back().slice.count += slice.count;
    } else {
      slices.push_back({slice, std::move(holders)});
    }
  };
  add(parameters.attention(), holders_of_attention(users));
  for (std::int64_t j = 0; j < parameters.user_model().generalists; ++j)
    add(parameters.expert(j), holders_of_generalist(users, j));
  return slices;
}

Aggregation::Aggregation(const comm::Communicator& world, const std::vector<model::UserModel>& users,
                         std::vector<SharedSlice> slices, comm::Memory memory, bool rank_order)
    : slices_(std::move(slices)), summation_(memory, rank_order) {
  for (const Holders& holders : all_groups(users))
    if (auto group = world.all_split(contains(holders, world.rank())))
      groups_.push_back({holders, std::move(*group)});
}

void Aggregation::all_aggregate(const model::Parameters& parameters) {
  // Groups in the order that all ranks have them in: no two ranks wait for each other in different
  // collectives.
  for (const Group& group : groups_) {
    for (const SharedSlice& shared : slices_) {
      if (shared.holders != group.holders) continue;
      at::Tensor part = model::view(parameters.values(), shared.slice);
      model::synchronize(part.device());
      summation_.all_sum(group.communicator,
                         {part.data_ptr<float>(), static_cast<std::size_t>(part.numel())});
      part.div_(static_cast<double>(group.holders.size()));
    }
  }
}

std::int64_t Aggregation::bytes() const {
  return std::accumulate(slices_.begin(), slices_.end(), std::int64_t{0},
                         [](std::int64_t sum, const SharedSlice& shared) {
                           return sum + shared.slice.count * static_cast<std::int64_t>(sizeof(float));
                         });
}

std::vector<double> Aggregation::weights(std::int64_t user, std::int64_t users) const {
  std::vector<double> row(static_cast<std::size_t>(users), 0.0);
  if (slices_.empty()) {
    row[static_cast<std::size_t>(user)] = 1.0;
    return row;
  }
  const Holders& holders = slices_.front().holders;
  for (const std::int64_t holder : holders)
    row[static_cast<std::size_t>(holder)] = 1.0 / static_cast<double>(holders.size());
  return row;
}

}  // namespace comigs::federation
