// The rounds: every user trains, what is shared is averaged, every user is evaluated (Algorithm 1).
#pragma once

#include <cstdint>

#include "comigs/base/records.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/aggregation.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::federation {

/// One user's way through the rounds of a run. Keeps references to what it is given, which must live longer.
class RoundLoop {
 public:
  RoundLoop(const comm::Communicator& world, const config::Config& config, const model::BaseModel& base,
            const data::UserData& shards, model::Parameters& parameters, train::LocalTrainer& trainer,
            Aggregation& aggregation);

  /// Collective over the world. Round 0: nothing is trained, all is evaluated.
  [[nodiscard]] UserRound all_start();
  /// Collective. Local training, aggregation and, where the round is one of those evaluated, evaluation.
  /// Throws PeerError on every rank if training or evaluation fails on any; an error inside an aggregation
  /// is the rank's own, for the program to end the others by.
  [[nodiscard]] UserRound all_round(std::int64_t round);

  [[nodiscard]] bool is_last(std::int64_t round) const { return round == config_.run.rounds; }
  [[nodiscard]] bool is_evaluated(std::int64_t round) const {
    return round % config_.run.evaluate_every == 0 || is_last(round);
  }

 private:
  /// Collective if gradients are exchanged, else local up to the agreement at its end.
  void all_train(std::int64_t round, UserRound& record);
  void all_aggregate(std::int64_t round, UserRound& record);
  void evaluate(UserRound& record) const;
  [[nodiscard]] SplitEvaluations perplexities() const;
  [[nodiscard]] RoutingStatistics with_single_expert(RoutingStatistics routed) const;
  [[nodiscard]] UserRound finish(UserRound record) const;

  const comm::Communicator& world_;
  const config::Config& config_;
  const model::BaseModel& base_;
  const data::UserData& shards_;
  model::Parameters& parameters_;
  train::LocalTrainer& trainer_;
  Aggregation& aggregation_;
  const config::User& user_;
};

}  // namespace comigs::federation
