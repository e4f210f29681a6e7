// The rounds: every user trains, what is shared is averaged, every user is evaluated (Algorithm 1).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "comigs/adapter/parameters.hpp"
#include "comigs/base/records.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/communicator.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/config/config.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/run/participation.hpp"
#include "comigs/train/evaluation.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::run {

/// One user's way through the rounds of a run. Keeps references to what it is given, which must live longer.
class RoundLoop {
 public:
  /// Sets the trainer up to exchange gradients where the rule asks for it, and to stop when the run is
  /// interrupted.
  RoundLoop(const comm::Communicator& world, const config::Config& config, const model::BaseModel& base,
            const data::UserData& shards, adapter::Parameters& parameters, train::LocalTrainer& trainer,
            Participation& participation, comm::Interruption& interruption);

  /// Collective over the world. Goes on with the round from where `progress` says up to its end: local
  /// training, aggregation and, where the round is one of those evaluated, evaluation; round 0 is evaluated
  /// only. Throws PeerError on every rank: with the exit code `interrupted` if the run is to stop, where
  /// parameters, trainer and `progress` are such that a later call goes on to the same numbers; else if
  /// training or evaluation fails on any rank. An error inside an aggregation is the rank's own, for the
  /// program to end the others by.
  void all_finish_round(RoundProgress& progress);

 private:
  /// Collective if gradients are exchanged, else local up to the agreement at its end.
  void all_train(RoundProgress& progress);
  void train(RoundProgress& progress);
  /// Collective. Users whose training failed drop out, if the configuration has it so.
  void all_drop_failed(std::int64_t round, std::optional<comm::Failure>& failure);
  /// Collective. Users' models before the last aggregation, if that changes anything.
  void all_compare(UserRound& record);
  void all_aggregate(UserRound& record);
  /// Collective agreement on local `work`; a failure stops the others' work early.
  void all_do(const std::function<void()>& work);
  void all_agree_on(const std::optional<comm::Failure>& failure);
  void evaluate(UserRound& record) const;
  [[nodiscard]] bool is_last(std::int64_t round) const { return round == config_.run.rounds; }
  [[nodiscard]] bool is_evaluated(std::int64_t round) const {
    return round % config_.run.evaluate_every == 0 || is_last(round);
  }
  [[nodiscard]] bool takes_part() const;
  /// Of the split's leading `tokens` (0: all).
  [[nodiscard]] train::SplitReport evaluated(const data::TokenShard& shard, std::int64_t tokens = 0) const;
  [[nodiscard]] SplitEvaluations perplexities() const;
  [[nodiscard]] RoutingStatistics with_single_expert(RoutingStatistics routed) const;

  const comm::Communicator& world_;
  const config::Config& config_;
  const model::BaseModel& base_;
  const data::UserData& shards_;
  adapter::Parameters& parameters_;
  train::LocalTrainer& trainer_;
  Participation& participation_;
  comm::Interruption& interruption_;
  const config::User& user_;
};

}  // namespace comigs::run
