// What happens to shared parameters once a round.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
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
///
/// A rule has four parts: it weighs the users, guards what leaves them (rounded by comm::Sums on its way;
/// what is not finite has ended the round before), combines it over a communicator, and applies the result to
/// this user's block. Where users hold the same slices the first and the third are all that a rule has of its
/// own: see `SliceRule`.
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
  /// What the next round's local training does beside its own loss; local.
  [[nodiscard]] virtual train::Regulariser regulariser() { return {}; }
  /// How many of this user's LoRA ranks are left, by a rule that prunes them; nothing: it does not.
  [[nodiscard]] virtual std::optional<std::int64_t> ranks_left() const { return {}; }
  /// Leaves so many ranks, 1 at least and all at most.
  virtual void leave_ranks(std::int64_t) {}
  /// What it keeps between its calls, for a checkpoint; a rule of the same set-up that is given it goes on as
  /// this one would. Throws DataError where these cannot be its numbers.
  [[nodiscard]] virtual std::vector<double> state() const { return {}; }
  void restore(const std::vector<double>& kept);

 protected:
  /// `state` has as many numbers as `state()`.
  virtual void take(const std::vector<double>&) {}
};

/// What rules are made from; the references must live as long as the rule.
struct AggregationSetup {
  const comm::Communicator& world;
  const Method& method;
  config::Method options = {};  ///< [method]
  const std::vector<adapter::UserModel>& users;
  /// What each user's experts train on: tokens, or examples where averages go by these.
  std::vector<std::int64_t> amounts;
  std::int64_t rounds = 0;          ///< of the run
  adapter::Parameters& parameters;  ///< this user's
  comm::Memory memory = comm::Memory::host;
  comm::Sums sums = comm::Sums::any_order;
  /// Local: the loss (nats a token) on this user's validation data of a model with these values [P].
  std::function<double(const at::Tensor& values, std::int64_t round)> validation_loss;
};

/// Collective over the world.
[[nodiscard]] std::unique_ptr<Aggregation> all_make_aggregation(const AggregationSetup& setup);

/// Of users [user]: the shares of these in the sum of what they train on.
[[nodiscard]] std::vector<double> shares_of_amounts(const AggregationSetup& setup,
                                                    std::span<const std::int64_t> users);

/// The numbers of a tensor (float32, contiguous) for others to reduce, once all work queued on them is done.
[[nodiscard]] std::span<float> settled(const at::Tensor& values);

}  // namespace comigs::federation
