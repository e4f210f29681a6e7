// A user with a tiny base, whose training tokens are all below 20 and whose validation tokens are all above.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/parameters.hpp"
#include "comigs/train/local_trainer.hpp"
#include "support/random_parameters.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::train {

inline constexpr std::int64_t boundary = 20;

inline LocalPlan small_plan() {
  LocalPlan plan;
  plan.method.router_every = 2;
  plan.method.router_steps = 3;
  plan.user.batch_sequences = 4;
  plan.user.context_tokens = 6;
  plan.user.local_steps = 4;
  plan.seed = 5;
  plan.rounds = 3;
  return plan;
}

/// What an observer saw of one step.
struct Seen {
  Phase phase;
  data::Batch batch;
  double language_model = 0.0;
  std::optional<double> load_balancing;
  at::Tensor values, gradients;  ///< copies of the block, before the optimiser's step
};

struct TrainerSetup : TemporaryFolder {
  at::Device device = at::kCPU;
  model::Architecture architecture = test::tiny_architecture();
  std::unique_ptr<model::BaseModel> base = test::tiny_base();
  data::UserData shards =
      test::write_user(folder, "user", test::random_tokens(300, boundary, 1),
                       test::random_tokens(200, 37 - boundary, 2, boundary), {1, 2, 3}, 37);
  adapter::UserModel user_model{
      .experts = 2, .generalists = {0}, .lora_rank = 2, .lora_alpha = 4.0, .top_k = 2};
  LocalPlan plan = small_plan();
  Texts texts{.experts = {shards.train}, .routers = {shards.validation}};

  [[nodiscard]] adapter::Parameters fresh() const {
    adapter::Parameters parameters(architecture, user_model, device);
    adapter::initialise(parameters, *base, plan.seed, plan.user_index);
    return parameters;
  }

  /// Base and fresh parameters are on the device from now on.
  void move_to(const at::Device& there) {
    device = there;
    base = model::make_base_model(
        architecture, [&, weights = test::random_weights(architecture)](const model::WeightSpec& spec) {
          return weights.at(spec.name).to(there);
        });
  }

  /// Parameters whose B differ from zero, so that every leaf gets a gradient.
  [[nodiscard]] adapter::Parameters warm() const {
    return test::random_parameters(architecture, user_model, 77, 0.1);
  }

  /// Runs rounds 1 .. `rounds` and tells every step.
  std::vector<Seen> train(adapter::Parameters& parameters, std::int64_t rounds) const {
    std::vector<Seen> steps;
    LocalTrainer trainer(*base, parameters, texts, plan);
    trainer.observe([&](Phase phase, const data::Batch& batch, const StepLosses& losses) {
      steps.push_back({.phase = phase,
                       .batch = batch,
                       .language_model = losses.language_model.item<double>(),
                       .load_balancing = {},
                       .values = test::copy_of(parameters.values()),
                       .gradients = test::copy_of(parameters.gradients())});
      if (losses.load_balancing.defined()) steps.back().load_balancing = losses.load_balancing.item<double>();
    });
    for (std::int64_t round = 1; round <= rounds; ++round) (void)trainer.train_round(round);
    return steps;
  }
};

inline bool is_training_batch(const data::Batch& batch) {
  return std::all_of(batch.tokens.begin(), batch.tokens.end(),
                     [](std::int64_t token) { return token < boundary; });
}
inline bool is_validation_batch(const data::Batch& batch) {
  return std::all_of(batch.tokens.begin(), batch.tokens.end(),
                     [](std::int64_t token) { return token >= boundary; });
}

inline at::Tensor part(const at::Tensor& block, const adapter::Slice& slice) {
  return test::copy_of(adapter::view(block, slice));
}

}  // namespace comigs::train
