// Writes what comigs computes on the way, for the independent references in tests/python to compare with.
//
//   reference_trace logits FOLDER TOKENS OUT float32|bf16
//     logits [B T, V] of the base model in FOLDER for `tokens` [B, T] int64 of the safetensors file TOKENS
//   reference_trace sampling LOGITS OUT TEMPERATURE TOP_K TOP_P
//     probabilities [N, V] by which tokens are drawn, for `logits` [N, V] of the safetensors file LOGITS
//   reference_trace steps OUT USERS USER DEVIATION ACTIVATIONS [options of `comigs train`]
//     every local step of user USER out of USERS over all rounds, without aggregation, from initial
//     parameters to which N(0, DEVIATION^2) is added, with activations in float32 or bf16. Writes, for S
//     steps of B x T tokens and P parameters:
//       values [S + 1, P] before each step and after the last, gradients [S, P], losses [S, 2] (language
//       model, load balancing or NaN), phases [S] (0: experts, 1: routers, 2: warm-up), tokens and targets
//       [S, B, T], instruction and category [S, B]; in the metadata each parameter's "offset rows columns" in
//       the block; where a gate is warmed up to tell clusters apart, features [n, C] and groups [n] of the n
//       examples, the user being alone
//   reference_trace pretraining OUT [options of `comigs pretrain`]
//     tokens and targets [S, B, T] of its S steps
//   reference_trace calibration OUT [options of `comigs prune`]
//     tokens [sequences, context] that it calibrates on; --context-tokens is given
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "comigs/adapter/forward.hpp"
#include "comigs/comm/session.hpp"
#include "comigs/config/pretrain.hpp"
#include "comigs/config/prune.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/federation/aggregation.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/clusters.hpp"
#include "comigs/train/evaluation.hpp"
#include "comigs/train/generation.hpp"
#include "support/user_job.hpp"

namespace {

using namespace comigs;
using namespace comigs::test;
using Arguments = std::vector<std::string>;

void write_logits(const Arguments& arguments) {
  const auto precision = arguments.at(3) == "bf16" ? config::Precision::bf16 : config::Precision::float32;
  const io::SafetensorsFile file(arguments.at(1));
  const io::TensorView& view = file.at("tokens");
  void* data = const_cast<std::byte*>(view.data());  // LibTorch has no tensors of const
  const at::Tensor tokens = at::from_blob(data, view.shape, at::kLong).clone();
  const auto base = model::load_base_model(arguments.at(0), job::stored_type(precision), at::kCPU);
  const adapter::Parameters none(base->architecture(), {.experts = 0, .gate = adapter::Gate::none}, at::kCPU);
  const at::NoGradGuard no_gradients;
  const at::Tensor hidden = adapter::forward(*base, tokens, none).hidden;
  const at::Tensor logits = hidden.mm(base->head().to(hidden.scalar_type()).t());
  write_outputs(arguments.at(2), {{"logits", logits.to(at::kFloat).contiguous()}}, {});
}

void write_sampling(const Arguments& arguments) {
  const io::SafetensorsFile file(arguments.at(0));
  const io::TensorView& view = file.at("logits");
  void* data = const_cast<std::byte*>(view.data());  // LibTorch has no tensors of const
  const at::Tensor logits = at::from_blob(data, view.shape, at::kFloat);
  const train::Sampling sampling{.temperature = std::stod(arguments.at(2)),
                                 .top_k = std::stol(arguments.at(3)),
                                 .top_p = std::stod(arguments.at(4))};
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : logits.unbind())
    rows.push_back(train::sampling_probabilities(row, sampling).to(at::kFloat));
  write_outputs(arguments.at(1), {{"probabilities", at::stack(rows)}}, {});
}

// Everything that an observer of the trainer sees.
struct Recording {
  std::vector<at::Tensor> values, gradients, losses, tokens, targets, instruction, category;
  std::vector<std::int64_t> phases;

  void add(const adapter::Parameters& parameters, train::Phase phase, const data::Batch& batch,
           const train::StepLosses& step) {
    values.push_back(parameters.values().clone());
    gradients.push_back(parameters.gradients().clone());
    losses.push_back(at::tensor({value_or_nan(step.language_model), value_or_nan(step.load_balancing)}));
    tokens.push_back(as_tensor(batch.tokens, batch));
    targets.push_back(as_tensor(batch.targets, batch));
    instruction.push_back(at::tensor(batch.instruction, at::kLong));
    category.push_back(at::tensor(batch.category, at::kLong));
    phases.push_back(phase == train::Phase::experts ? 0 : phase == train::Phase::routers ? 1 : 2);
  }
};

// As for a user whose gate is its own.
Outputs warm_up_to_clusters(const Job& job, const adapter::Parameters& parameters,
                            train::LocalTrainer& trainer) {
  const at::Tensor features = train::gate_features(*job.base, parameters, job.texts.experts,
                                                   {.context = job.plan.user.context_tokens});
  const std::vector<std::int64_t> groups =
      train::all_cluster(
          {.points = {features}}, job.user_model.experts,
          {.seed = job.plan.seed, .user = job.plan.user_index, .stream = Stream::gate_clusters})
          .front();
  trainer.warm_up_to(groups);
  return {{"features", features}, {"groups", at::tensor(groups, at::kLong)}};
}

void write_steps(const Arguments& arguments) {
  const auto user = static_cast<std::size_t>(std::stoul(arguments.at(2)));
  const Job job =
      read_job(std::stol(arguments.at(1)), user, Arguments(arguments.begin() + 5, arguments.end()), at::kCPU,
               arguments.at(4) == "bf16" ? at::kBFloat16 : at::kFloat);
  model::set_up_host(1);
  adapter::Parameters parameters(job.base->architecture(), job.user_model, at::kCPU);
  adapter::initialise(parameters, *job.base, job.config.run.seed, static_cast<std::int64_t>(user));
  perturb(parameters.values(), std::stof(arguments.at(3)));
  train::LocalTrainer trainer(*job.base, parameters, job.texts, job.plan);
  const comm::Communicator alone = comm::Communicator::world();
  const std::vector<adapter::UserModel> users = {job.user_model};
  const auto rule =
      federation::all_make_aggregation({.world = alone,
                                        .method = federation::find_method(job.config.method.name),
                                        .options = job.config.method,
                                        .users = users,
                                        .amounts = {1},
                                        .parameters = parameters,
                                        .validation_loss = {}});
  trainer.regularise(rule->regulariser());
  Outputs outputs;
  if (job.config.method.gate_targets == config::GateTargets::clusters)
    outputs = warm_up_to_clusters(job, parameters, trainer);
  Recording recording;
  trainer.observe([&](train::Phase phase, const data::Batch& batch, const train::StepLosses& losses) {
    recording.add(parameters, phase, batch, losses);
  });
  for (std::int64_t round = 1; round <= job.config.run.rounds; ++round) trainer.train_round(round);
  recording.values.push_back(parameters.values().clone());
  outputs.merge(Outputs{{"values", at::stack(recording.values)},
                        {"gradients", at::stack(recording.gradients)},
                        {"losses", at::stack(recording.losses)},
                        {"tokens", at::stack(recording.tokens)},
                        {"targets", at::stack(recording.targets)},
                        {"instruction", at::stack(recording.instruction)},
                        {"category", at::stack(recording.category)},
                        {"phases", at::tensor(recording.phases, at::kLong)}});
  write_outputs(arguments.at(0), outputs, layout(parameters));
}

// Drawn as the stream's definition says: all sequences of step s from its key.
void write_pretraining(const Arguments& arguments) {
  const config::Pretrain plan = config::parse_pretrain(Arguments(arguments.begin() + 1, arguments.end()));
  const data::Manifest manifest = data::read_manifest(plan.data);
  const data::TokenShard text(manifest.base.value().train, manifest.vocabulary);
  std::vector<at::Tensor> tokens, targets;
  for (std::int64_t step = 0; step < plan.steps; ++step) {
    const data::Batch batch = data::sample_batch({&text, 1}, plan.batch_sequences, plan.context_tokens,
                                                 {.seed = plan.seed,
                                                  .user = shared_user,
                                                  .stream = Stream::pretrain_batch,
                                                  .step = static_cast<std::uint32_t>(step)});
    tokens.push_back(as_tensor(batch.tokens, batch));
    targets.push_back(as_tensor(batch.targets, batch));
  }
  write_outputs(arguments.at(0), {{"tokens", at::stack(tokens)}, {"targets", at::stack(targets)}}, {});
}

// All sequences from one key.
void write_calibration(const Arguments& arguments) {
  const config::Prune plan = config::parse_prune(Arguments(arguments.begin() + 1, arguments.end()));
  const data::Manifest manifest = data::read_manifest(plan.data);
  const data::TokenShard text(manifest.base.value().train, manifest.vocabulary);
  const data::Batch batch =
      data::sample_batch({&text, 1}, plan.calibration_sequences, plan.context_tokens,
                         {.seed = plan.seed, .user = shared_user, .stream = Stream::calibration_batch});
  write_outputs(arguments.at(0), {{"tokens", as_tensor(batch.tokens, batch)}}, {});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const Arguments arguments(argv + std::min(argc, 2), argv + argc);
  try {
    if (what == "logits") {
      write_logits(arguments);
    } else if (what == "sampling") {
      write_sampling(arguments);
    } else if (what == "steps") {
      const comm::Session session(argc, argv);
      write_steps(arguments);
    } else if (what == "pretraining") {
      write_pretraining(arguments);
    } else if (what == "calibration") {
      write_calibration(arguments);
    } else {
      fmt::print(stderr, "error: expected 'logits', 'sampling', 'steps', 'pretraining' or 'calibration'\n");
      return 2;
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}
