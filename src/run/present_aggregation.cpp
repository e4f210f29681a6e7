#include "comigs/run/present_aggregation.hpp"

#include <algorithm>
#include <numeric>

#include "comigs/federation/collaboration.hpp"
#include "comigs/federation/rank_rules.hpp"
#include "comigs/federation/traffic.hpp"
#include "comigs/job/local_work.hpp"

namespace comigs::run {

namespace {

std::vector<std::size_t> everyone(std::size_t count) {
  std::vector<std::size_t> users(count);
  std::iota(users.begin(), users.end(), std::size_t{0});
  return users;
}

}  // namespace

federation::AggregationSetup aggregation_setup(const comm::Communicator& world, const job::Job& job,
                                               const config::Config& config, const model::BaseModel& base,
                                               Seat& seat) {
  const bool by_examples = job.config.method.averaging == config::Averaging::examples;
  std::vector<std::int64_t> amounts;
  for (std::size_t user = 0; user < job.users.size(); ++user)
    amounts.push_back(by_examples ? job.examples[user].trained_on
                                  : job::expert_tokens(job.config, job.manifest, user));
  adapter::Parameters& parameters = seat.parameters();
  const bool on_device = parameters.values().is_cuda();
  return {.world = world,
          .method = *job.method,
          .options = job.config.method,
          .users = job.users,
          .amounts = std::move(amounts),
          .rounds = job.config.run.rounds,
          .parameters = parameters,
          .memory = on_device ? comm::Memory::device : comm::Memory::host,
          .sums = federation::sums(job.config.run),
          .validation_loss =
              federation::validation_loss(config, base, parameters, seat.data().validation, seat.user())};
}

PresentAggregation::PresentAggregation(const federation::AggregationSetup& setup, std::size_t user)
    : all_(setup), user_(user) {
  all_restrict(everyone(all_.users.size()));
  changes_parameters_ = rule_->changes_parameters();
}

void PresentAggregation::all_restrict(std::vector<std::size_t> present) {
  present_ = std::move(present);
  models_.clear();
  std::vector<std::int64_t> amounts;
  for (const std::size_t user : present_) {
    models_.push_back(all_.users[user]);
    if (!all_.amounts.empty()) amounts.push_back(all_.amounts[user]);
  }
  ranks_left_ = ranks_left();
  rule_.reset();
  group_ = all_.world.all_split(std::ranges::find(present_, user_) != present_.end());
  if (!group_) return;
  federation::AggregationSetup among{.world = *group_,
                                     .method = all_.method,
                                     .options = all_.options,
                                     .users = models_,
                                     .amounts = std::move(amounts),
                                     .rounds = all_.rounds,
                                     .parameters = all_.parameters,
                                     .memory = all_.memory,
                                     .sums = all_.sums,
                                     .validation_loss = all_.validation_loss};
  rule_ = federation::all_make_aggregation(among);
  if (ranks_left_) rule_->leave_ranks(*ranks_left_);
}

federation::Aggregated PresentAggregation::all_aggregate(std::int64_t round) {
  federation::Aggregated done{.bytes = 0, .weights = std::vector<double>(all_.users.size(), 0.0)};
  if (!rule_) {
    done.weights[user_] = 1.0;
    return done;
  }
  const federation::Aggregated among = rule_->all_aggregate(round);
  done.bytes = among.bytes;
  for (std::size_t i = 0; i < present_.size(); ++i) done.weights[present_[i]] = among.weights[i];
  return done;
}

train::LocalTrainer::Exchange PresentAggregation::exchange() { return rule_->exchange(); }

train::Regulariser PresentAggregation::regulariser() {
  train::Regulariser own = rule_->regulariser();
  return own.term ? own : federation::tail_penalty(all_);
}

std::optional<std::int64_t> PresentAggregation::ranks_left() const {
  return rule_ ? rule_->ranks_left() : ranks_left_;
}

void PresentAggregation::leave_ranks(std::int64_t rank) {
  ranks_left_ = rank;
  if (rule_) rule_->leave_ranks(rank);
}

std::int64_t PresentAggregation::rank_in_use() const {
  return ranks_left().value_or(all_.parameters.user_model().rank_as_told());
}

std::vector<double> PresentAggregation::state() const {
  return rule_ ? rule_->state() : std::vector<double>();
}

void PresentAggregation::take(const std::vector<double>& state) {
  if (rule_) rule_->restore(state);
}

}  // namespace comigs::run
