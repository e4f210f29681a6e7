// The immutable description of a run, as resolved from defaults, a job file and the command line.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace comigs::config {

enum class Precision { float32, bf16 };
enum class Activations { automatic, float32, bf16 };
enum class DeviceChoice { automatic, cpu, cuda };
enum class LoadBalancing { none, uniform, generalist };
/// What the weights of the load-balancing loss add up to.
enum class BalancingStrength { paper, published };
/// Who has a user's LoRA beside attention: as its method has it, or nobody else.
enum class AttentionSharing { method, own };
/// The rounds after which PCL mixes.
enum class Mixing { every_round, renewals };
/// The splits that expert steps draw their batches from.
enum class TrainOn { train, train_and_validation };
/// What the warm-up of a gate by sequence tells apart: categories of examples, or clusters of what it reads.
enum class GateTargets { categories, clusters };
/// With which weights users' shared parameters are averaged.
enum class Averaging { uniform, tokens, examples };

/// What is done about an interrupted run in the output folder.
enum class Resume { never, automatic };
/// What becomes of a run one of whose users cannot go on training.
enum class OnUserFailure { stop, go_on };

struct Run {
  std::string output = {};  ///< folder of results.h5
  std::uint64_t seed = 0;
  std::int64_t rounds = 20;         ///< communication rounds
  std::int64_t evaluate_every = 1;  ///< rounds between evaluations; the first and the last always are
  std::int64_t weights_every = 0;   ///< rounds between stored LoRA factors; 0: the last round only
  /// Leading training tokens that are evaluated, 0: all; nothing: the steps' own losses are what is told of
  /// training text.
  std::optional<std::int64_t> train_evaluation_tokens = std::nullopt;
  Precision precision = Precision::float32;  ///< of frozen weights
  /// Of what is computed beside bf16 weights; automatic: bf16 where every rank's device is fast in it.
  Activations activations = Activations::automatic;
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;  ///< compute threads a rank; 0: its share of the cores it may use
  /// Of what an aggregation sends; sums are float32.
  Precision communication = Precision::float32;
  bool reproducible = true;  ///< sum in rank order, so that bits do not depend on placement
  Resume resume = Resume::never;
  std::int64_t checkpoint_every = 1;  ///< rounds between checkpoints; 0: only where the run is interrupted
  OnUserFailure on_user_failure = OnUserFailure::stop;
  double patience = 3600.0;  ///< seconds that ranks wait for each other where all meet; 0: for ever
};

struct Data {
  std::string folder;  ///< data-set folder with manifest.json
};

struct Model {
  std::string folder;        ///< Hugging Face folder: config.json, model.safetensors
  std::string init_adapter;  ///< PEFT folder that LoRAs begin as; empty: as drawn
};

struct Method {
  std::string name = "comigs-1g1s";
  std::int64_t router_every = 30;  ///< tau: expert iterations between router updates, over the whole run
  std::int64_t router_steps = 10;  ///< s: optimiser steps of a router update
  LoadBalancing load_balancing = LoadBalancing::generalist;
  double load_balancing_weight = 0.01;  ///< lambda
  double generalist_importance = 0.5;   ///< share of tokens that a generalist is balanced at; Eq. 6 has 1/2
  BalancingStrength load_balancing_strength = BalancingStrength::paper;
  TrainOn train_on = TrainOn::train;
  bool carry_phase_gradients = false;  ///< as the published code does; off: the paper's separate phases
  Averaging averaging = Averaging::uniform;
  /// lambda_p of HetLoRA; nothing: 5e-3 where ranks are pruned, 0 elsewhere.
  std::optional<double> rank_regulariser = std::nullopt;
  double pruning_strength = 0.99;  ///< HetLoRA: the share of a user's rank that is never pruned
  Mixing mixing = Mixing::every_round;
  std::int64_t gate_warmup_rounds = 2;  ///< W: first rounds, in which a gate by sequence alone is trained
  GateTargets gate_targets = GateTargets::categories;
};

struct Optimiser {
  double final_fraction = 0.1;   ///< the cosine ends at this fraction of the peak
  double warmup_fraction = 0.0;  ///< share of the run's iterations in which the rate rises (half cosine)
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  /// Nothing: 0.01 for LoRA, 0 for prompts, which it would pull off the scale of what the network reads.
  std::optional<double> weight_decay = std::nullopt;
};

/// Stands for `experts = auto` until the user's budgets have settled the number.
inline constexpr std::int64_t automatic_experts = 0;

/// What one user gets: `[user]` for all, `[user.i]` or a list option for one.
struct User {
  std::int64_t experts = 2;  ///< in every MLP block; or `automatic_experts`
  std::int64_t lora_rank = 8;
  std::int64_t attention_rank = 0;  ///< of the LoRA beside attention; 0: `lora_rank`
  AttentionSharing attention_sharing = AttentionSharing::method;
  double lora_alpha = 16.0;                                 ///< gamma = alpha / sqrt(rank)
  std::int64_t prompt_tokens = 10;                          ///< of each group of prompts
  std::optional<std::int64_t> prompt_layer = std::nullopt;  ///< which prompts enter; nothing: a third of them
  std::int64_t gate_width = 128;                            ///< H, of the hidden layer of a gate by sequence
  std::int64_t top_k = 2;                                   ///< experts active for a token
  std::int64_t batch_sequences = 64;
  /// Most sequences that are run at a time; 0: the whole batch.
  std::int64_t micro_batch_sequences = 0;
  double memory = 0.0;       ///< GiB for the base, its training and activations; 0: no limit
  double step_budget = 0.0;  ///< for automatic experts: most FLOPs of a step, those with one being 1; 0: any
  std::int64_t context_tokens = 128;
  std::int64_t local_steps = 10;       ///< optimiser steps between two aggregations
  double expert_learning_rate = 2e-3;  ///< peak
  double router_learning_rate = 2e-3;  ///< constant
  std::int64_t train_tokens = 0;       ///< leading tokens of the training split that are used; 0: all
  double train_share = 1.0;            ///< leading share of the split; the smaller of both counts
  std::vector<std::int64_t> generalists = {0};  ///< those it holds, rising, where it may choose (comigs-mgxs)
  /// Names of these options that somebody gave the user, be it with the default's value: silence is no
  /// choice.
  std::set<std::string, std::less<>> said = {};

  /// Of a micro-batch, where `memory` does not ask for fewer.
  [[nodiscard]] std::int64_t sequences_at_a_time() const {
    return micro_batch_sequences > 0 ? micro_batch_sequences : batch_sequences;
  }
};

struct Config {
  Run run;
  Data data;
  Model model;
  Method method;
  Optimiser optimiser;
  std::vector<User> users;  ///< one a rank; filled by `resolve` for a number of users
};

}  // namespace comigs::config
