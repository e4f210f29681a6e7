#include "comigs/federation/shared_means.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>
#include <utility>

#include "comigs/federation/traffic.hpp"
#include "comigs/model/device.hpp"

namespace comigs::federation {

namespace {

using Holders = std::vector<std::int64_t>;

Holders holders_of_attention(const std::vector<adapter::UserModel>& users) {
  Holders holders;
  for (std::size_t u = 0; u < users.size(); ++u)
    if (users[u].shared_attention) holders.push_back(static_cast<std::int64_t>(u));
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
  std::set<Holders> groups = {holders_of_attention(users)};
  for (const adapter::UserModel& user : users)
    for (const std::int64_t generalist : user.generalists)
      groups.insert(holders_of_generalist(users, generalist));
  std::erase_if(groups, [](const Holders& holders) { return holders.size() < 2; });
  return groups;
}

bool contains(const Holders& holders, std::int64_t user) {
  return std::binary_search(holders.begin(), holders.end(), user);
}

}  // namespace

std::vector<SharedSlice> shared_slices(const std::vector<adapter::UserModel>& users, std::int64_t user,
                                       const adapter::Layout& layout) {
  std::vector<SharedSlice> slices;
  // Slices are joined where they are neighbours for all holders alike: attention and generalist 0,
  // generalists of consecutive numbers. `number`: of the generalist, -1 for attention.
  std::int64_t last_number = 0;
  const auto add = [&](std::int64_t number, const adapter::Slice& slice, Holders holders) {
    if (holders.size() < 2 || slice.count == 0 || !contains(holders, user)) return;
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
  add(-1, layout.slice(adapter::select::attention(own.shared)), holders_of_attention(users));
  for (std::size_t slot = 0; slot < own.generalists.size(); ++slot)
    add(own.generalists[slot],
        layout.slice(adapter::select::expert(static_cast<std::int64_t>(slot), own.shared)),
        holders_of_generalist(users, own.generalists[slot]));
  return slices;
}

void all_weighted_mean(const comm::Communicator& group, comm::Reduction& reduction, const at::Tensor& values,
                       double weight) {
  values.mul_(weight);
  model::synchronize(values.device());
  reduction.all_sum(group, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
}

SharedMeans::SharedMeans(const AggregationSetup& setup)
    : setup_(setup),
      slices_(shared_slices(setup.users, setup.world.rank(), setup.parameters.layout())),
      reduction_(setup.memory, setup.sums) {
  const std::set<Holders> groups = all_groups(setup.users);
  shares_anything_ = !groups.empty();
  for (const Holders& holders : groups)
    if (auto group = setup.world.all_split(contains(holders, setup.world.rank())))
      groups_.push_back({holders, std::move(*group)});
}

Aggregated SharedMeans::all_aggregate(std::int64_t) {
  // Groups in the order that all ranks have them in: no two ranks wait for each other in different
  // collectives.
  for (const Group& group : groups_) {
    for (const SharedSlice& shared : slices_) {
      if (shared.holders != group.holders) continue;
      all_weighted_mean(group.communicator, reduction_,
                        adapter::view(setup_.parameters.values(), shared.slice),
                        weight(shared.holders, setup_.world.rank()));
    }
  }
  return {.bytes = bytes_of_means(slices_, setup_.sums), .weights = mixing_row()};
}

double SharedMeans::weight(const std::vector<std::int64_t>& holders, std::int64_t user) const {
  if (setup_.averaging == config::Averaging::uniform) return 1.0 / static_cast<double>(holders.size());
  double sum = 0.0;
  for (const std::int64_t holder : holders)
    sum += static_cast<double>(setup_.tokens[static_cast<std::size_t>(holder)]);
  return static_cast<double>(setup_.tokens[static_cast<std::size_t>(user)]) / sum;
}

std::vector<double> SharedMeans::mixing_row() const {
  std::vector<double> row(setup_.users.size(), 0.0);
  if (slices_.empty()) row[static_cast<std::size_t>(setup_.world.rank())] = 1.0;
  double count = 0.0;
  for (const SharedSlice& shared : slices_) count += static_cast<double>(shared.slice.count);
  for (const SharedSlice& shared : slices_)
    for (const std::int64_t holder : shared.holders)
      row[static_cast<std::size_t>(holder)] +=
          weight(shared.holders, holder) * static_cast<double>(shared.slice.count) / count;
  return row;
}

GradientMeans::GradientMeans(const AggregationSetup& setup)
    : setup_(setup), reduction_(setup.memory, setup.sums) {}

Aggregated GradientMeans::all_aggregate(std::int64_t) {
  const std::size_t users = setup_.users.size();
  return {.bytes = std::exchange(bytes_, 0),
          .weights = std::vector<double>(users, 1.0 / static_cast<double>(users))};
}

train::LocalTrainer::Exchange GradientMeans::exchange() {
  return [this](const at::Tensor& gradients) {
    all_weighted_mean(setup_.world, reduction_, gradients, 1.0 / static_cast<double>(setup_.world.size()));
    bytes_ += bytes_of_sum(gradients.numel(), setup_.sums);
  };
}

const Rule rules::mean{.averaged = "mean",
                       .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
                         return std::make_unique<SharedMeans>(setup);
                       },
                       .bytes_in_round =
                           [](const RuleCost& of, std::int64_t) {
                             const auto user = static_cast<std::int64_t>(of.user);
                             return bytes_of_means(shared_slices(of.users, user, of.layout),
                                                   sums(of.config.run));
                           },
                       .sums_alone = true};

const Rule rules::gradients{.averaged = "gradients",
                            .all_make = [](const AggregationSetup& setup) -> std::unique_ptr<Aggregation> {
                              return std::make_unique<GradientMeans>(setup);
                            },
                            .bytes_in_round =
                                [](const RuleCost& of, std::int64_t) {
                                  return of.config.users[of.user].local_steps *
                                         bytes_of_sum(of.layout.slice(adapter::select::lora()).count,
                                                      sums(of.config.run));
                                },
                            .every_step = true,
                            .one_shape = true,
                            .own_weights = true,
                            .sums_alone = true};

}  // namespace comigs::federation
