#include "comigs/federation/participation.hpp"

namespace comigs::federation {

Participation::Participation(const AggregationSetup& setup)
    : all_(setup), included_(setup.users.size(), true) {
  all_drop(std::vector<bool>(included_.size(), false));
  changes_parameters_ = rule_->changes_parameters();
}

void Participation::all_drop(const std::vector<bool>& users) {
  for (std::size_t user = 0; user < included_.size(); ++user)
    included_[user] = included_[user] && !users.at(user);
  left_.clear();
  models_.clear();
  std::vector<std::int64_t> tokens;
  for (std::size_t user = 0; user < included_.size(); ++user) {
    if (!included_[user]) continue;
    left_.push_back(user);
    models_.push_back(all_.users[user]);
    if (!all_.tokens.empty()) tokens.push_back(all_.tokens[user]);
  }
  ranks_left_ = ranks_left();
  rule_.reset();
  group_ = all_.world.all_split(included_[static_cast<std::size_t>(all_.world.rank())]);
  if (!group_) return;
  AggregationSetup among{.world = *group_,
                         .method = all_.method,
                         .options = all_.options,
                         .users = models_,
                         .tokens = std::move(tokens),
                         .parameters = all_.parameters,
                         .memory = all_.memory,
                         .sums = all_.sums,
                         .validation_loss = all_.validation_loss};
  rule_ = all_make_aggregation(among);
  if (ranks_left_) rule_->leave_ranks(*ranks_left_);
}

Aggregated Participation::all_aggregate(std::int64_t round) {
  Aggregated done{.bytes = 0, .weights = std::vector<double>(included_.size(), 0.0)};
  if (!rule_) {
    done.weights[static_cast<std::size_t>(all_.world.rank())] = 1.0;
    return done;
  }
  const Aggregated among = rule_->all_aggregate(round);
  done.bytes = among.bytes;
  for (std::size_t i = 0; i < left_.size(); ++i) done.weights[left_[i]] = among.weights[i];
  return done;
}

train::LocalTrainer::Exchange Participation::exchange() { return rule_->exchange(); }

train::Regulariser Participation::regulariser() { return rule_->regulariser(); }

std::optional<std::int64_t> Participation::ranks_left() const {
  return rule_ ? rule_->ranks_left() : ranks_left_;
}

void Participation::leave_ranks(std::int64_t rank) {
  ranks_left_ = rank;
  if (rule_) rule_->leave_ranks(rank);
}

std::int64_t Participation::rank_in_use() const {
  return ranks_left().value_or(all_.parameters.user_model().lora_rank);
}

std::vector<double> Participation::state() const { return rule_ ? rule_->state() : std::vector<double>(); }

void Participation::take(const std::vector<double>& state) {
  if (rule_) rule_->restore(state);
}

}  // namespace comigs::federation
