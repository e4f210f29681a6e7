#include "comigs/federation/shared_slices.hpp"

#include <algorithm>
#include <iterator>
#include <limits>
#include <set>
#include <utility>

#include "comigs/federation/traffic.hpp"

namespace comigs::federation {

namespace {

using Holders = std::vector<std::int64_t>;

Holders holders_of(bool adapter::UserModel::*shared, const std::vector<adapter::UserModel>& users) {
  Holders holders;
  for (std::size_t u = 0; u < users.size(); ++u)
    if (users[u].*shared) holders.push_back(static_cast<std::int64_t>(u));
  return holders;
}

Holders holders_of_generalist(const std::vector<adapter::UserModel>& users, std::int64_t generalist) {
  Holders holders;
  for (std::size_t u = 0; u < users.size(); ++u)
    if (std::ranges::binary_search(users[u].generalists, generalist))
      holders.push_back(static_cast<std::int64_t>(u));
  return holders;
}

// Every set of two or more users that holds something in common, in an order that all ranks agree on.
std::set<Holders> all_groups(const std::vector<adapter::UserModel>& users) {
  std::set<Holders> groups = {holders_of(&adapter::UserModel::shared_attention, users),
                              holders_of(&adapter::UserModel::shared_routers, users)};
  for (const adapter::UserModel& user : users)
    for (const std::int64_t generalist : user.generalists)
      groups.insert(holders_of_generalist(users, generalist));
  std::erase_if(groups, [](const Holders& holders) { return holders.size() < 2; });
  return groups;
}

std::int64_t bytes_of_slices(const std::vector<SharedSlice>& slices, comm::Sums sums) {
  std::int64_t bytes = 0;
  for (const SharedSlice& shared : slices) bytes += bytes_of_reduction(shared.slice.count, sums);
  return bytes;
}

}  // namespace

std::vector<SharedSlice> shared_slices(const std::vector<adapter::UserModel>& users, std::int64_t user,
                                       const adapter::Layout& layout) {
  std::vector<SharedSlice> slices;
  // Slices are joined where they are neighbours for all holders alike: attention and generalist 0,
  // generalists of consecutive numbers. `number`: of the generalist, -1 for attention.
  std::int64_t last_number = 0;
  const auto add = [&](std::int64_t number, const adapter::Slice& slice, Holders holders) {
    if (holders.size() < 2 || slice.count == 0 || !std::ranges::binary_search(holders, user)) return;
    const bool follows = !slices.empty() && slices.back().holders == holders && number == last_number + 1 &&
                         slices.back().slice.offset + slices.back().slice.count == slice.offset;
    last_number = number;
    if (follows) {
      slices.back().slice.count += slice.count;
    } else {
      slices.push_back({slice, std::move(holders)});
    }
  };
  const adapter::UserModel& own = users[static_cast<std::size_t>(user)];
  add(-1, layout.slice(adapter::select::attention(own.shared)),
      holders_of(&adapter::UserModel::shared_attention, users));
  for (std::size_t slot = 0; slot < own.generalists.size(); ++slot)
    add(own.generalists[slot],
        layout.slice(adapter::select::expert(static_cast<std::int64_t>(slot), own.shared)),
        holders_of_generalist(users, own.generalists[slot]));
  constexpr std::int64_t after_all_others = std::numeric_limits<std::int64_t>::max();
  add(after_all_others, layout.slice(adapter::select::routers()),
      holders_of(&adapter::UserModel::shared_routers, users));
  return slices;
}

std::vector<std::int64_t> users_of_one_model(const Rule& rule, const std::vector<adapter::UserModel>& users,
                                             std::int64_t user, const adapter::Layout& layout) {
  Holders alike;
  for (std::size_t u = 0; u < users.size(); ++u)
    if (users[u] == users[static_cast<std::size_t>(user)]) alike.push_back(static_cast<std::int64_t>(u));
  std::int64_t own = layout.slice(adapter::select::routers()).count;
  for (const adapter::Slice& slice : layout.trained()) own += slice.count;
  if (rule.every_step || own == 0) return alike;
  for (const SharedSlice& shared : shared_slices(users, user, layout)) {
    own -= shared.slice.count;
    Holders both;
    std::ranges::set_intersection(alike, shared.holders, std::back_inserter(both));
    alike = std::move(both);
  }
  return rule.by_slices && own == 0 ? alike : Holders{user};
}

std::vector<double> equal_weights(const AggregationSetup&, std::span<const std::int64_t> holders) {
  return std::vector<double>(holders.size(), 1.0 / static_cast<double>(holders.size()));
}

namespace {

class Slicewise : public Aggregation {
 public:
  Slicewise(const AggregationSetup& setup, const SliceRule& rule)
      : setup_(setup),
        rule_(rule),
        slices_(shared_slices(setup.users, setup.world.rank(), setup.parameters.layout())),
        reduction_(setup.memory, setup.sums) {
    const std::set<Holders> groups = all_groups(setup.users);
    shares_anything_ = !groups.empty();
    for (const Holders& holders : groups)
      if (auto group =
              setup.world.all_split(std::ranges::binary_search(holders, std::int64_t{setup.world.rank()})))
        groups_.push_back({holders, std::move(*group), rule.weigh(setup, holders)});
  }

  Aggregated all_aggregate(std::int64_t) override {
    // Groups in the order that all ranks have them in: no two ranks wait for each other in different
    // collectives.
    for (const Group& group : groups_) {
      const double weight = group.weights[static_cast<std::size_t>(group.communicator.rank())];
      for (const SharedSlice& shared : slices_)
        if (shared.holders == group.holders)
          rule_.all_combine(group.communicator, reduction_,
                            adapter::view(setup_.parameters.values(), shared.slice), weight);
    }
    return {.bytes = bytes_of_slices(slices_, setup_.sums), .weights = mixing_row()};
  }

  [[nodiscard]] bool changes_parameters() const override { return shares_anything_; }

 private:
  struct Group {
    Holders holders;
    comm::Communicator communicator;
    std::vector<double> weights;  // [holder]
  };

  [[nodiscard]] std::vector<double> mixing_row() const {
    std::vector<double> row(setup_.users.size(), 0.0);
    if (slices_.empty()) row[static_cast<std::size_t>(setup_.world.rank())] = 1.0;
    double count = 0.0;
    for (const SharedSlice& shared : slices_) count += static_cast<double>(shared.slice.count);
    for (const SharedSlice& shared : slices_) {
      const Group& group = *std::ranges::find(groups_, shared.holders, &Group::holders);
      for (std::size_t i = 0; i < group.holders.size(); ++i)
        row[static_cast<std::size_t>(group.holders[i])] +=
            group.weights[i] * static_cast<double>(shared.slice.count) / count;
    }
    return row;
  }

  AggregationSetup setup_;
  SliceRule rule_;
  std::vector<Group> groups_;
  std::vector<SharedSlice> slices_;
  comm::Reduction reduction_;
  bool shares_anything_ = false;
};

}  // namespace

std::unique_ptr<Aggregation> all_make_slicewise(const AggregationSetup& setup, const SliceRule& rule) {
  return std::make_unique<Slicewise>(setup, rule);
}

RuleCost cost_of_slices(const RuleUser& of) {
  const auto user = static_cast<std::int64_t>(of.user);
  return {.bytes = bytes_of_slices(shared_slices(of.users, user, of.layout), sums(of.config.run))};
}

}  // namespace comigs::federation
