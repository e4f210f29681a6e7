#include "comigs/train/local_trainer.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "comigs/adapter/kind.hpp"
#include "comigs/adapter/losses.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "comigs/model/device.hpp"
#include "tensors.hpp"

namespace comigs::train {

namespace {

AdamwConstants constants(const config::Optimiser& optimiser, const adapter::AdapterKind& kind) {
  return {.beta1 = optimiser.beta1,
          .beta2 = optimiser.beta2,
          .epsilon = optimiser.epsilon,
          .weight_decay = optimiser.weight_decay.value_or(kind.weight_decay)};
}

// Eq. 6 is about one generalist among specialists: a user without one, or with several, has no expert to
// favour.
adapter::BalancingWeights balancing_weights(const config::Method& method, const adapter::UserModel& user) {
  const bool favours =
      method.load_balancing == config::LoadBalancing::generalist && user.generalists.size() == 1;
  const auto importance = favours ? std::optional(method.generalist_importance) : std::nullopt;
  return method.load_balancing_strength == config::BalancingStrength::paper
             ? adapter::balancing_weights(user.experts, importance)
             : adapter::published_balancing_weights(user.experts, importance, user.top_k);
}

}  // namespace

// What a micro-batch is read from and what comes of it, and the passes between the two.
struct LocalTrainer::MicroBatch {
  BatchTensors inputs;
  at::Tensor share;  // of the batch's predicted tokens, float32: on the device, since passes are recorded
  StepLosses losses;
  model::Recording passes;
};

LocalTrainer::LocalTrainer(const model::BaseModel& base, adapter::Parameters& parameters, Texts texts,
                           LocalPlan plan)
    : base_(base),
      parameters_(parameters),
      texts_(std::move(texts)),
      plan_(std::move(plan)),
      routers_(parameters.layout().slice(adapter::select::routers())),
      trained_(parameters.layout().trained()),
      schedule_{.peak = plan_.user.expert_learning_rate,
                .warmup_fraction = plan_.optimiser.warmup_fraction,
                .final_fraction = plan_.optimiser.final_fraction,
                .steps = (plan_.rounds - plan_.gate_warmup_rounds) * plan_.user.local_steps},
      optimiser_(parameters.values(), parameters.gradients(),
                 constants(plan_.optimiser, *parameters.user_model().kind)),
      recording_memory_(parameters.values().device()) {}

LocalTrainer::~LocalTrainer() = default;

void LocalTrainer::regularise(Regulariser regulariser) {
  if (regulariser.version != regulariser_.version) micro_batches_.clear();
  regulariser_ = std::move(regulariser);
}

LocalRound LocalTrainer::train_round(std::int64_t round, std::int64_t first_step) {
  LocalRound done{.steps = first_step};
  const at::Device device = parameters_.values().device();
  loss_sum_ = at::zeros({}, parameters_.values().options());
  nats_ = at::zeros({}, parameters_.values().options().dtype(at::kDouble));
  tokens_ = 0;
  for (; done.steps < plan_.user.local_steps && !(stop_ && stop_()); ++done.steps) {
    const std::int64_t iteration = (round - 1) * plan_.user.local_steps + done.steps;
    Stopwatch watch;
    const bool warmup = round <= plan_.gate_warmup_rounds;
    if (warmup) {
      warmup_step(round, done.steps, iteration);
    } else {
      expert_step(round, done.steps, iteration);
    }
    // Waiting for the device at the end of a phase only, so that the clock reads right.
    if (routers_due(iteration)) {
      model::synchronize(device);
      done.experts_seconds += watch.lap();
      router_steps(round, iteration);
      model::synchronize(device);
      done.routers_seconds += watch.lap();
    } else {
      if (done.steps + 1 == plan_.user.local_steps) model::synchronize(device);
      (warmup ? done.routers_seconds : done.experts_seconds) += watch.lap();
    }
    // Ranks that exchange gradients fail together, after the last step; a GPU is not waited for.
    if (!exchange_ && device.is_cpu() && !std::isfinite(loss_sum_.item<float>())) fail(round);
  }
  model::synchronize(device);
  check_finite(round);
  done.experts = {.loss_sum = nats_.item<double>(), .tokens = tokens_};
  return done;
}

std::vector<std::pair<std::string, at::Tensor>> LocalTrainer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> blocks = {{"values", parameters_.values()},
                                                            {"first_moments", optimiser_.first_moments()},
                                                            {"second_moments", optimiser_.second_moments()}};
  if (plan_.method.carry_phase_gradients) blocks.emplace_back("gradients", parameters_.gradients());
  return blocks;
}

std::int64_t LocalTrainer::steps_in_round(std::int64_t round) const {
  std::int64_t steps = plan_.user.local_steps;
  for (std::int64_t step = 0; step < plan_.user.local_steps; ++step)
    if (routers_due((round - 1) * plan_.user.local_steps + step)) steps += plan_.method.router_steps;
  return steps;
}

bool LocalTrainer::routers_due(std::int64_t iteration) const {
  return plan_.router_training == RouterTraining::alternating && parameters_.user_model().routed() &&
         (iteration + 1) % plan_.method.router_every == 0;
}

StreamKey LocalTrainer::key_of(std::int64_t round, std::int64_t step) const {
  return {plan_.seed, plan_.user_index, Stream::train_batch, static_cast<std::uint32_t>(round),
          static_cast<std::uint32_t>(step)};
}

data::Batch LocalTrainer::batch_of(const StreamKey& key) const {
  const std::int64_t B = plan_.user.batch_sequences;
  return data::sample_batch(texts_.experts, B, plan_.user.context_tokens, key, plan_.batch.index * B);
}

void LocalTrainer::warmup_step(std::int64_t round, std::int64_t step, std::int64_t iteration) {
  data::Batch batch = batch_of(key_of(round, step));
  if (!warmup_groups_.empty())
    std::ranges::transform(batch.example, batch.category.begin(), [&](std::int64_t example) {
      return warmup_groups_[static_cast<std::size_t>(example)];
    });
  parameters_.track(false, true);
  clear({routers_});
  const StepLosses losses = accumulate_gradients(Phase::warmup, batch, batch.predicted);
  if (exchange_) exchange_(adapter::view(parameters_.gradients(), routers_));
  if (observer_) observer_(Phase::warmup, batch, losses);
  optimiser_.step(routers_, plan_.user.router_learning_rate, iteration + 1);
}

void LocalTrainer::expert_step(std::int64_t round, std::int64_t step, std::int64_t iteration) {
  const bool joint = plan_.router_training == RouterTraining::joint && routers_.count > 0;
  const bool carries = plan_.method.carry_phase_gradients;
  const StreamKey key = key_of(round, step);
  const std::int64_t B = plan_.user.batch_sequences, T = plan_.user.context_tokens, parts = plan_.batch.of,
                     of_experts = iteration - plan_.gate_warmup_rounds * plan_.user.local_steps;
  const data::Batch batch = batch_of(key);
  std::vector<adapter::Slice> own = trained_;
  if (joint) own.push_back(routers_);
  parameters_.track(true, joint || carries);
  if (!carries) clear(own);
  const std::int64_t predicted = data::predicted_tokens(texts_.experts, parts * B, T, key);
  const StepLosses losses = accumulate_gradients(Phase::experts, batch, predicted, parts);
  nats_.add_(losses.language_model.to(at::kDouble),
             static_cast<double>(predicted) / static_cast<double>(parts));
  tokens_ += batch.predicted;
  if (exchange_)
    for (const adapter::Slice& slice : own) exchange_(adapter::view(parameters_.gradients(), slice));
  if (observer_) observer_(Phase::experts, batch, losses);
  for (const adapter::Slice& slice : trained_)
    optimiser_.step(slice, schedule_.rate(of_experts), of_experts + 1);
  if (joint) optimiser_.step(routers_, plan_.user.router_learning_rate, iteration + 1);
  if (carries) clear(own);
  if (regulariser_.after_step) regulariser_.after_step();
}

void LocalTrainer::router_steps(std::int64_t round, std::int64_t iteration) {
  const bool carries = plan_.method.carry_phase_gradients;
  parameters_.track(carries, true);
  for (std::int64_t s = 0; s < plan_.method.router_steps; ++s) {
    // Several router phases may fall into one round: their steps are numbered over the run.
    const std::int64_t number = (iteration + 1) / plan_.method.router_every * plan_.method.router_steps + s;
    const data::Batch batch =
        data::sample_batch(texts_.routers, plan_.user.batch_sequences, plan_.user.context_tokens,
                           {plan_.seed, plan_.user_index, Stream::router_batch,
                            static_cast<std::uint32_t>(round), static_cast<std::uint32_t>(number)});
    if (!carries) clear({routers_});
    const StepLosses losses = accumulate_gradients(Phase::routers, batch, batch.predicted);
    if (observer_) observer_(Phase::routers, batch, losses);
    optimiser_.step(routers_, plan_.user.router_learning_rate, number - plan_.method.router_steps + 1);
    if (carries) clear({routers_});
  }
}

void LocalTrainer::clear(const std::vector<adapter::Slice>& parts) {
  for (const adapter::Slice& part : parts) adapter::view(parameters_.gradients(), part).zero_();
}

StepLosses LocalTrainer::accumulate_gradients(Phase phase, const data::Batch& batch, std::int64_t predicted,
                                              std::int64_t parts) {
  const std::int64_t size = plan_.user.sequences_at_a_time();
  StepLosses sums;
  // Copies: the passes of any part overwrite the losses of another.
  const auto add = [](at::Tensor& sum, const at::Tensor& part) {
    if (part.defined()) sum = sum.defined() ? sum + part : part.clone();
  };
  for (std::int64_t begin = 0; begin < batch.sequences; begin += size) {
    data::Batch rows = data::slice(batch, begin, std::min(size, batch.sequences - begin));
    const double share = static_cast<double>(rows.sequences) / static_cast<double>(batch.sequences);
    MicroBatch& part = micro_batch(phase, rows.sequences);
    fill(part.inputs, rows);
    // The mean over the parts is what processes make of their gradients.
    part.share.fill_(static_cast<double>(rows.predicted * parts) / static_cast<double>(predicted));
    part.passes.run(
        [&] { part.losses = phase == Phase::warmup ? warmup_backward(part, share) : backward(part, share); });
    add(sums.language_model, part.losses.language_model);
    add(sums.load_balancing, part.losses.load_balancing);
  }
  loss_sum_.add_(sums.language_model);
  return sums;
}

LocalTrainer::MicroBatch& LocalTrainer::micro_batch(Phase phase, std::int64_t sequences) {
  std::unique_ptr<MicroBatch>& part = micro_batches_[{phase, sequences}];
  if (!part)
    part = std::make_unique<MicroBatch>(
        empty_batch(sequences, plan_.user.context_tokens, parameters_.values().device()),
        at::empty({}, parameters_.values().options()), StepLosses(), model::Recording(recording_memory_));
  return *part;
}

StepLosses LocalTrainer::backward(const MicroBatch& part, double share) {
  const adapter::Forward forward =
      adapter::forward(base_, part.inputs.tokens, parameters_, part.inputs.instruction);
  at::Tensor loss = model::cross_entropy(forward.hidden, base_.head(), part.inputs.targets, part.share);
  StepLosses losses{.language_model = loss.detach(), .load_balancing = {}};
  const bool of_tokens = !forward.routing.empty() && !parameters_.user_model().gated_by_sequence();
  if (plan_.method.load_balancing != config::LoadBalancing::none && of_tokens) {
    // Windows are full; examples have tokens that only lead to the response, and padding.
    const bool all_count = !texts_.experts.front().has_examples();
    const at::Tensor counted = all_count ? at::Tensor() : part.inputs.targets.ge(0).to(at::kFloat);
    const at::Tensor balance =
        adapter::load_balancing_loss(forward.routing,
                                     balancing_weights(plan_.method, parameters_.user_model()), counted) *
        share;
    losses.load_balancing = balance.detach();
    loss = loss + plan_.method.load_balancing_weight * balance;
  }
  const Regulariser::Term term = regulariser_.term ? regulariser_.term() : Regulariser::Term();
  if (term.value.defined()) loss = loss + share * term.weight * term.value;
  loss.backward();
  return losses;
}

StepLosses LocalTrainer::warmup_backward(const MicroBatch& part, double share) {
  const at::Tensor logits = adapter::sequence_gate_logits(base_, part.inputs.tokens, parameters_,
                                                          part.inputs.instruction),
                   loss = at::cross_entropy_loss(logits, part.inputs.category) * share;
  loss.backward();
  return {.language_model = loss.detach(), .load_balancing = {}};
}

void LocalTrainer::check_finite(std::int64_t round) {
  // One reduction a block: a sum is not finite if any element is not.
  if (!(loss_sum_ + parameters_.values().sum() + optimiser_.second_moments().sum()).isfinite().item<bool>())
    fail(round);
}

void LocalTrainer::fail(std::int64_t round) const {
  throw NumericError(fmt::format(
      "round {}: the training loss, a gradient or a parameter is not finite; a smaller learning rate "
      "may help ([user] expert_learning_rate = {}, router_learning_rate = {})",
      round, plan_.user.expert_learning_rate, plan_.user.router_learning_rate));
}

}  // namespace comigs::train
