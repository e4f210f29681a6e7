#include "comigs/job/cost.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <utility>

#include "comigs/adapter/flops.hpp"
#include "comigs/adapter/footprint.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/federation/shared_slices.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"

namespace comigs::job {

namespace {

constexpr std::int64_t mib = 1 << 20;
// Measured (x86-64, LibTorch 2.11): a process that has run a step of a tiny model, and what a further one of
// the node adds.
constexpr std::int64_t program_on_cpu = 160 * mib, program_of_a_further_rank = 70 * mib;
// What oneDNN's kernels and packed operands take beside it where products are in bf16 (measured with AMX).
constexpr std::int64_t program_of_bf16_products = 32 * mib;
// On the card: its context and the libraries' kernels. On the host: LibTorch's CUDA half and the driver.
constexpr std::int64_t program_on_gpu = 500 * mib, program_beside_gpu = 3072 * mib;

std::int64_t bytes_of_shard(const data::ShardDescription& shard) {
  const std::int64_t examples = shard.examples ? shard.examples->count : 0;
  return shard.tokens * (shard.type == data::TokenType::uint16 ? 2 : 4) +
         examples * static_cast<std::int64_t>(sizeof(data::Example));
}

class CostOfUser {
 public:
  CostOfUser(const CostSetup& setup, std::size_t user)
      : setup_(setup),
        shards_(setup.manifest.users[user]),
        model_(setup.users[user]),
        user_(user),
        own_(setup.config.users[user]),
        layout_(setup.architecture, model_),
        one_model_(federation::users_of_one_model(setup.method.rule, setup.users,
                                                  static_cast<std::int64_t>(user), layout_)),
        rule_(setup.method.rule.cost({setup.config, setup.users, user, layout_})) {
    own_.micro_batch_sequences =
        sequences_within_memory(own_, user, setup.architecture, model_, setup.computation);
  }

  [[nodiscard]] Cost cost() const {
    const config::Run& run = setup_.config.run;
    const PeakMemory peak = memory();
    return {.parameters = layout_.size(),
            .micro_batch_sequences = own_.micro_batch_sequences,
            .memory = peak,
            .start_flops = flops(adapter::Pass::warmup, clustered() * own_.context_tokens) + evaluation(),
            .training_flops = training(),
            .evaluation_flops = evaluations(),
            .bytes = run.rounds * rule_.bytes + extra_rounds() * rule_.extra.bytes,
            .host_memory = setup_.computation.on_gpu ? beside_gpu(peak) : peak.total()};
  }

 private:
  // FLOPs ------------------------------------------------------------------------------------------------

  [[nodiscard]] double flops(adapter::Pass pass, std::int64_t tokens) const {
    return adapter::flops(setup_.architecture, model_, pass, tokens, own_.context_tokens);
  }

  [[nodiscard]] std::int64_t warmup_rounds() const {
    return std::min(local_plan(setup_.method, setup_.config, user_).gate_warmup_rounds,
                    setup_.config.run.rounds);
  }

  // Examples whose features are clustered before the first round.
  [[nodiscard]] std::int64_t clustered() const {
    if (warmup_rounds() == 0 || setup_.config.method.gate_targets != config::GateTargets::clusters) return 0;
    const std::int64_t T = own_.context_tokens;
    const bool on_validation = setup_.config.method.train_on == config::TrainOn::train_and_validation;
    return data::evaluation_sequences(shards_.train, train_tokens(own_, shards_), T) +
           (on_validation ? data::evaluation_sequences(shards_.validation, shards_.validation.tokens, T) : 0);
  }

  [[nodiscard]] double training() const {
    const std::int64_t warmup = warmup_rounds() * own_.local_steps;
    const std::int64_t steps = setup_.config.run.rounds * own_.local_steps - warmup;
    const bool in_turn =
        setup_.method.router_training == train::RouterTraining::alternating && model_.routed();
    const std::int64_t router_steps =
        in_turn ? steps / setup_.config.method.router_every * setup_.config.method.router_steps : 0;
    const std::int64_t batch = own_.batch_sequences * own_.context_tokens;
    return static_cast<double>(warmup) * flops(adapter::Pass::warmup, batch) +
           static_cast<double>(steps) * flops(adapter::Pass::experts, batch) +
           static_cast<double>(router_steps) * flops(adapter::Pass::routers, batch) +
           static_cast<double>(extra_rounds() * rule_.extra.batches) *
               flops(adapter::Pass::evaluation, batch);
  }

  // In which the rule takes more.
  [[nodiscard]] std::int64_t extra_rounds() const {
    std::int64_t rounds = 0;
    if (rule_.extra.in_round)
      for (std::int64_t round = 1; round <= setup_.config.run.rounds; ++round)
        rounds += rule_.extra.in_round(round) ? 1 : 0;
    return rounds;
  }

  // The sequences that the first `tokens` of a split are evaluated in, in tokens, padding among them; of
  // examples at most, as a batch is no longer than the longest of its own.
  [[nodiscard]] std::int64_t evaluated(const data::ShardDescription& split, std::int64_t tokens) const {
    return data::evaluation_sequences(split, tokens, own_.context_tokens) * own_.context_tokens;
  }
  [[nodiscard]] std::int64_t evaluated(const data::ShardDescription& split) const {
    return evaluated(split, split.tokens);
  }

  [[nodiscard]] std::int64_t evaluated_in_training() const {
    const std::optional<std::int64_t> leading = setup_.config.run.train_evaluation_tokens;
    if (!leading) return 0;
    const std::int64_t all = train_tokens(own_, shards_);
    return evaluated(shards_.train, *leading > 0 ? std::min(*leading, all) : all);
  }

  [[nodiscard]] double evaluation() const {
    return flops(adapter::Pass::evaluation, evaluated_in_training()) + held_out(one_model_);
  }

  // Its part of what it does with those of `models` who have the same text: whole batches, in turn.
  [[nodiscard]] double held_out(const std::vector<std::int64_t>& models) const {
    double sum = 0.0;
    for (const auto split : {&data::UserShards::validation, &data::UserShards::test}) {
      const std::int64_t tokens = evaluated(shards_.*split),
                         at_a_time = evaluation_sequences(own_) * own_.context_tokens,
                         batches = std::max<std::int64_t>((tokens + at_a_time - 1) / at_a_time, 1);
      const data::Share share = share_in(split, models);
      const std::int64_t own = (batches - share.index + share.of - 1) / share.of;
      sum +=
          flops(adapter::Pass::evaluation, tokens) * static_cast<double>(own) / static_cast<double>(batches);
    }
    return sum;
  }

  [[nodiscard]] data::Share share_in(data::ShardDescription data::UserShards::*split,
                                     const std::vector<std::int64_t>& models) const {
    data::Share share{.index = 0, .of = 0};
    for (const std::int64_t model : models) {
      const auto user = static_cast<std::size_t>(model);
      if (user != user_ && !evaluates_alike(user, split)) continue;
      share.index += user < user_ ? 1 : 0;
      ++share.of;
    }
    return share;
  }

  [[nodiscard]] bool evaluates_alike(std::size_t user,
                                     data::ShardDescription data::UserShards::*split) const {
    const auto digests = [](const data::ShardDescription& text) {
      return std::pair(text.sha256, text.examples ? text.examples->sha256 : std::string("none"));
    };
    const data::ShardDescription &text = shards_.*split, &other = setup_.manifest.users[user].*split;
    const config::User &one = setup_.config.users[user_], &two = setup_.config.users[user];
    return digests(text) == digests(other) && !text.sha256.empty() && !digests(text).second.empty() &&
           one.context_tokens == two.context_tokens && one.memory == two.memory &&
           one.batch_sequences == two.batch_sequences &&
           one.micro_batch_sequences == two.micro_batch_sequences;
  }

  // After every so many rounds and the last, and before the last aggregation where there is one.
  [[nodiscard]] double evaluations() const {
    const config::Run& run = setup_.config.run;
    if (run.rounds == 0) return 0.0;
    const std::int64_t times =
        run.rounds / run.evaluate_every + (run.rounds % run.evaluate_every > 0 ? 1 : 0);
    const bool compares = !setup_.method.rule.every_step && rule_.bytes + rule_.extra.bytes > 0;
    return static_cast<double>(times) * evaluation() +
           (compares ? held_out({static_cast<std::int64_t>(user_)}) : 0.0);
  }

  // Memory -----------------------------------------------------------------------------------------------

  [[nodiscard]] PeakMemory memory() const {
    const adapter::Footprint step =
        adapter::footprint(setup_.architecture, model_, setup_.computation,
                           own_.micro_batch_sequences * own_.context_tokens, own_.micro_batch_sequences);
    PeakMemory memory{.base = step.base,
                      .training = step.parameters + rule_.kept_bytes,
                      .activations = alive(model_.gate == adapter::Gate::none ? 0 : step.activations),
                      .program = program()};
    // Rank 0 has the base's file and a converted copy before anything else.
    if (converts())
      memory.activations = std::max(memory.activations, setup_.weights_converted - memory.training);
    return memory;
  }

  // Steps on a GPU keep their memory; those of the host lend it to an evaluation, or to what all users'
  // parameters take where they meet.
  [[nodiscard]] std::int64_t alive(std::int64_t step) const {
    return setup_.computation.on_gpu ? step + evaluation_at_a_time()
                                     : std::max({step, evaluation_at_a_time(), gathered(), clustering()});
  }

  [[nodiscard]] bool converts() const { return user_ == 0 && setup_.weights_converted > 0; }

  // What is run without gradients: splits, and a batch at a time where the rule runs some.
  [[nodiscard]] std::int64_t evaluation_at_a_time() const {
    const std::int64_t split =
        std::max({evaluated_in_training(), evaluated(shards_.validation), evaluated(shards_.test)});
    std::int64_t tokens = std::min(evaluation_sequences(own_) * own_.context_tokens, split);
    if (rule_.extra.batches > 0) tokens = std::max(tokens, own_.sequences_at_a_time() * own_.context_tokens);
    return adapter::evaluation_activations(setup_.architecture, model_, setup_.computation, tokens,
                                           tokens / own_.context_tokens);
  }

  // In host memory.
  [[nodiscard]] std::int64_t features() const {
    return clustered() * setup_.architecture.width * static_cast<std::int64_t>(sizeof(float));
  }

  // Features, and of the passes that they come from an evaluation's activations at most.
  [[nodiscard]] std::int64_t clustering() const {
    if (clustered() == 0) return 0;
    const std::int64_t sequences = std::min(evaluation_sequences(own_), clustered());
    return features() + adapter::evaluation_activations(setup_.architecture, model_, setup_.computation,
                                                        sequences * own_.context_tokens, sequences);
  }

  // All users' parameters, in host memory where they meet.
  [[nodiscard]] std::int64_t gathered() const {
    if (user_ != 0 && !rule_.gathers) return 0;
    std::int64_t everyone = 0;
    for (const adapter::UserModel& user : setup_.users)
      everyone +=
          adapter::Layout(setup_.architecture, user).size() * static_cast<std::int64_t>(sizeof(float));
    return everyone;
  }

  [[nodiscard]] std::int64_t program() const {
    if (setup_.computation.on_gpu) return program_on_gpu;
    const bool narrow = setup_.computation.computed == at::kBFloat16;
    return program_on_cpu + (narrow ? program_of_bf16_products : 0) + texts();
  }

  [[nodiscard]] std::int64_t texts() const {
    std::int64_t bytes = 0;
    for (std::size_t u = 0; u < setup_.manifest.users.size(); ++u) {
      if (u != user_ && !setup_.method.rule.every_step) continue;
      const data::UserShards& shards = setup_.manifest.users[u];
      bytes += bytes_of_shard(shards.train) + bytes_of_shard(shards.validation) + bytes_of_shard(shards.test);
    }
    return bytes;
  }

  // Of a process that computes on a GPU; a checkpoint takes a copy of all that is trained, long after the
  // features are gone.
  [[nodiscard]] std::int64_t beside_gpu(const PeakMemory& peak) const {
    return program_beside_gpu + peak.base + texts() + std::max(peak.training + gathered(), features());
  }

  const CostSetup& setup_;
  const data::UserShards& shards_;
  const adapter::UserModel& model_;
  std::size_t user_;
  config::User own_;  // with its micro-batches as they fit
  adapter::Layout layout_;
  std::vector<std::int64_t> one_model_;  // users
  federation::RuleCost rule_;
};

}  // namespace

Cost cost(const CostSetup& setup, std::size_t user) { return CostOfUser(setup, user).cost(); }

std::int64_t memory_of_node(const std::vector<Cost>& costs, bool cuda) {
  std::int64_t bytes = costs.front().memory.base;
  for (const Cost& cost : costs) bytes += cost.host_memory - cost.memory.base;
  // LibTorch is there once; its CUDA half is each process's own.
  const auto further = static_cast<std::int64_t>(costs.size()) - 1;
  if (!cuda) bytes -= further * (program_on_cpu - program_of_a_further_rank);
  return bytes;
}

}  // namespace comigs::job
