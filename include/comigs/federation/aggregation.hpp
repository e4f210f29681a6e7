// What happens to shared parameters once a round.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/reduction.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::federation {

/// What one aggregation did to this user.
struct Aggregated {
  std::int64_t bytes = 0;  ///< payload that this rank handed to MPI since the last aggregation
  /// [user] its row of the mixing matrix: with which weight each user's shared parameters are in its own; the
  /// mean over shared parameters where they differ.
  std::vector<double> weights;
};

/// An aggregation rule with what it keeps between rounds. Made by `all_make_aggregation`; one rank a user.
class Aggregation {
 public:
  Aggregation() = default;
  Aggregation(const Aggregation&) = delete;
  Aggregation& operator=(const Aggregation&) = delete;
  virtual ~Aggregation() = default;

  /// Collective over the world, after the local training of `round` (from 1). Replaces what this user shares.
  virtual Aggregated all_aggregate(std::int64_t round) = 0;
  /// Whether `all_aggregate` can change anything; the same on every rank.
  [[nodiscard]] virtual bool changes_parameters() const = 0;
  /// What local training calls at every step, if it is to exchange gradients; collective over the world.
  [[nodiscard]] virtual train::LocalTrainer::Exchange exchange() { return {}; }
  /// What it keeps between its calls, for a checkpoint; a rule of the same set-up that is given it goes on as
  /// this one would. Throws DataError where these cannot be its numbers.
  [[nodiscard]] virtual std::vector<double> state() const { return {}; }
  void restore(const std::vector<double>& state);

 protected:
  /// `state` has as many numbers as `state()`.
  virtual void take(const std::vector<double>&) {}
};

/// What rules are made from; the references must live as long as the rule.
struct AggregationSetup {
  const comm::Communicator& world;
  const Method& method;
  config::Averaging averaging = config::Averaging::uniform;
  double pruning_strength = 0.99;
  const std::vector<adapter::UserModel>& users;
  std::vector<std::int64_t> tokens;  ///< that each user's experts train on
  adapter::Parameters& parameters;   ///< this user's
  comm::Memory memory = comm::Memory::host;
  comm::Sums sums = comm::Sums::any_order;
  /// Local: the loss (nats a token) on this user's validation data of a model with these values [P].
  std::function<double(const at::Tensor& values, std::int64_t round)> validation_loss;
};

/// Collective over the world.
[[nodiscard]] std::unique_ptr<Aggregation> all_make_aggregation(const AggregationSetup& setup);

}  // namespace comigs::federation
