#include "comigs/run/seat.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/job/local_work.hpp"

namespace comigs::run {

namespace {

adapter::Parameters drawn(const SeatSetup& setup) {
  adapter::Parameters parameters(setup.base.architecture(), setup.user_model, setup.device);
  adapter::initialise(parameters, setup.base, setup.config.run.seed, static_cast<std::int64_t>(setup.user));
  if (setup.init_adapter) setup.init_adapter->put_into(parameters);
  return parameters;
}

// A view [E, m C]; empty where the user has none.
at::Tensor prompts_of(const adapter::Parameters& parameters) {
  const adapter::UserModel& user = parameters.user_model();
  if (!user.trains_prompts()) return parameters.values().narrow(0, 0, 0);
  return adapter::view(parameters.values(), parameters.layout().slice(adapter::select::factors()))
      .view({user.experts, -1});
}

std::vector<float> to_floats(const at::Tensor& numbers) {
  const at::Tensor host = numbers.to(at::kCPU, at::kFloat).contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

}  // namespace

SeatSetup all_open_user(const comm::Communicator& world, const job::Job& job, const config::Config& config,
                        const model::BaseModel& base, const c10::Device& device, std::size_t user) {
  data::UserData data =
      comm::all_agree(world, [&] { return job::open_user(job.config, job.manifest, user); });
  train::Texts texts =
      comm::all_agree(world, [&] { return job::texts(*job.method, job.config, job.manifest, user, data); });
  std::optional<adapter::PeftAdapter> init_adapter =
      comm::all_agree(world, [&] { return job::open_init_adapter(job); });
  return {.config = config,
          .method = *job.method,
          .user_model = job.users[user],
          .base = base,
          .device = device,
          .user = user,
          .data = std::move(data),
          .texts = std::move(texts),
          .categories = std::ssize(job.manifest.categories),
          .init_adapter = std::move(init_adapter)};
}

Seat::Seat(SeatSetup setup)
    : setup_(std::move(setup)),
      parameters_(drawn(setup_)),
      drawn_prompts_(prompts_of(parameters_).clone()),
      trainer_(setup_.base, parameters_, setup_.texts,
               job::local_plan(setup_.method, setup_.config, setup_.user)),
      passes_(trainer_.recording_memory()) {
  setup_.init_adapter.reset();  // its memory is needed no more
}

UserState Seat::give() const {
  UserState state;
  state.standing.progress = progress_;
  state.standing.start = start_;
  for (const auto& [name, block] : trainer_.state()) state.blocks.emplace_back(name, block.to(at::kCPU));
  return state;
}

void Seat::take(const UserState& state) {
  const std::vector<std::pair<std::string, at::Tensor>> own = trainer_.state();
  for (std::size_t i = 0; i < own.size(); ++i) own[i].second.copy_(state.blocks.at(i).second);
  progress_ = state.standing.progress;
  start_ = state.standing.start;
}

bool Seat::train() {
  results::UserRound& record = progress_.record;
  const train::LocalRound done = trainer_.train_round(record.round, progress_.steps);
  progress_.steps = done.steps;
  record.seconds.experts += done.experts_seconds;
  record.seconds.routers += done.routers_seconds;
  if (!setup_.config.run.train_evaluation_tokens) {
    record.after.train.loss_sum += done.experts.loss_sum;
    record.after.train.tokens += done.experts.tokens;
  }
  return done.steps >= options().local_steps;
}

void Seat::evaluate_training(const std::function<bool()>& stop) {
  const std::optional<std::int64_t> leading = setup_.config.run.train_evaluation_tokens;
  if (!leading) return;
  train::EvaluationOptions options = evaluation_options(stop);
  options.tokens = *leading;
  progress_.record.after.train =
      train::evaluate(setup_.base, parameters_, setup_.data.train, options).evaluation;
}

void Seat::record(const HeldOutReports& found) {
  results::UserRound& record = progress_.record;
  const train::SplitReport& test = found.test;
  record.after.validation = found.validation.evaluation;
  record.after.test = test.evaluation;
  record_categories(test, found.validation);
  record_prompts();
  record.routing = with_single_expert(test.routing);
  record.update_norm = parameters_.update_norms(parameters_.user_model().experts);
  if (std::isfinite(test.evaluation.loss())) return;
  if (const config::Model& begun = setup_.config.model; record.round == 0)
    throw DataError(fmt::format(
        "the loss of the untrained base model {}{} is not finite; are its weights whole?", begun.folder,
        begun.init_adapter.empty() ? "" : fmt::format(" with the adapter {}", begun.init_adapter)));
  throw NumericError(
      fmt::format("round {}: the test loss is not finite after the round's steps; a smaller learning rate "
                  "may help ([user] expert_learning_rate = {})",
                  record.round, options().expert_learning_rate));
}

void Seat::record_categories(const train::SplitReport& test, const train::SplitReport& validation) {
  results::UserRound& record = progress_.record;
  record.category_loss.clear();
  record.category_perplexity.clear();
  for (const Evaluation& category : test.by_category.evaluation) {
    record.category_loss.push_back(category.loss());
    record.category_perplexity.push_back(category.perplexity());
  }
  record.prompt_weight = test.by_category.gate;
  record.prompt_entropy = test.by_category.gate_entropy;
  if (const adapter::UserModel& user = parameters_.user_model();
      user.needs_no_gate() && user.trains_prompts()) {
    record.prompt_weight.assign(record.category_loss.size(), 1.0f);
    record.prompt_entropy.assign(record.category_loss.size(), 0.0f);
  }
  const train::LocalPlan& plan = trainer_.plan();
  if (plan.gate_warmup_rounds > 0 && record.round <= plan.gate_warmup_rounds &&
      plan.method.gate_targets == config::GateTargets::categories)
    record.warmup_accuracy = validation.by_category.gate_accuracy;
}

void Seat::record_prompts() {
  const at::Tensor prompts = prompts_of(parameters_);
  if (prompts.numel() == 0) return;
  progress_.record.prompt_norm = to_floats(prompts.norm(2, 1));
  progress_.record.prompt_shift = to_floats((prompts - drawn_prompts_).norm(2, 1));
}

at::Tensor Seat::gate_features(const std::function<bool()>& stop) const {
  return train::gate_features(
      setup_.base, parameters_, job::expert_texts(setup_.config, setup_.data),
      {.context = options().context_tokens, .sequences = job::evaluation_sequences(options()), .stop = stop});
}

std::string Seat::evaluation_key(const data::TokenShard& split) const {
  return train::evaluation_key(split, evaluation_options());
}

std::vector<double> Seat::batch_sums(const data::TokenShard& split, data::Share share,
                                     const std::function<bool()>& stop) const {
  return train::batch_sums(setup_.base, parameters_, split, evaluation_options(stop), share);
}

train::SplitReport Seat::report(std::span<const double> sums, std::int64_t processes) const {
  return train::report(setup_.base, parameters_, setup_.categories, sums, processes);
}

train::EvaluationOptions Seat::evaluation_options(const std::function<bool()>& stop) const {
  return {.context = options().context_tokens,
          .sequences = job::evaluation_sequences(options()),
          .tokens = 0,
          .categories = setup_.categories,
          .stop = stop,
          .passes = &passes_};
}

// The one expert of a user without a router takes every token with gate 1; a gate by sequence is in one
// layer.
RoutingStatistics Seat::with_single_expert(RoutingStatistics routed) const {
  const adapter::UserModel& user = parameters_.user_model();
  const bool by_sequence = user.gate == adapter::Gate::sequence;
  if (!user.needs_no_gate()) return routed;
  const auto layers = static_cast<std::size_t>(setup_.base.architecture().layers),
             gated = static_cast<std::size_t>(user.load(setup_.base.architecture()).first_layer);
  const auto in_its_layers = [&](float value) {
    std::vector<float> of_layers(layers, by_sequence ? std::numeric_limits<float>::quiet_NaN() : value);
    of_layers[gated] = value;
    return of_layers;
  };
  return {.score = in_its_layers(1.0f), .load = in_its_layers(1.0f), .entropy = in_its_layers(0.0f)};
}

}  // namespace comigs::run
