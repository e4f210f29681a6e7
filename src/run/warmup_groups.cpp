#include "comigs/run/warmup_groups.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "comigs/comm/agreement.hpp"
#include "comigs/train/clusters.hpp"

namespace comigs::run {

namespace {

using Labels = std::vector<std::int64_t>;

// Collective. All users' labels, one user's after the other's; this rank serves one.
Labels all_join(const Roster& roster, Labels own) {
  const std::int64_t count = std::ssize(own);
  const std::vector<std::int64_t> counts = roster.all_gather(std::span(&count, 1));
  const std::int64_t most = std::ranges::max(counts);
  own.resize(static_cast<std::size_t>(most));
  const Labels padded = roster.all_gather(own);
  Labels all;
  for (std::size_t user = 0; user < counts.size(); ++user) {
    const auto begin = padded.begin() + static_cast<std::ptrdiff_t>(user) * most;
    all.insert(all.end(), begin, begin + counts[user]);
  }
  return all;
}

}  // namespace

void all_find_warmup_groups(const comm::Communicator& world, const Roster& roster, Seat& seat,
                            const std::function<bool()>& stop) {
  const train::LocalPlan& plan = seat.trainer().plan();
  if (plan.method.gate_targets != config::GateTargets::clusters ||
      seat.progress().record.round > plan.method.gate_warmup_rounds)
    return;
  const bool warms_up = plan.gate_warmup_rounds > 0;  // a user with one group has no gate
  const at::Tensor features =
      comm::all_agree(world, [&] { return warms_up ? seat.gate_features(stop) : at::Tensor(); });
  if (!warms_up) return;
  const adapter::UserModel& user = seat.parameters().user_model();
  StreamKey key{.seed = plan.seed, .user = plan.user_index, .stream = Stream::gate_clusters};
  train::HeldPoints held{.points = {features}};
  if (user.shared_routers) {
    key.user = shared_user;
    held.first = seat.user();
    held.all_gather = [&](std::span<const double> own) { return roster.all_gather(own); };
  }
  Labels groups = std::move(train::all_cluster(held, user.experts, key).front());
  // One model for all draws from all users' examples.
  if (seat.trainer().exchanges()) groups = all_join(roster, std::move(groups));
  seat.trainer().warm_up_to(std::move(groups));
}

}  // namespace comigs::run
