// Writes what comigs computes on the way, for the independent references in tests/python to compare with.
//
//   reference_trace logits FOLDER TOKENS OUT float32|bf16
//     logits [B T, V] of the base model in FOLDER for `tokens` [B, T] int64 of the safetensors file TOKENS
//   reference_trace steps OUT USERS USER DEVIATION [options of `comigs train`]
//     every local step of user USER out of USERS over all rounds, without aggregation, from initial
//     parameters to which N(0, DEVIATION^2) is added. Writes, for S steps of B x T tokens and P parameters:
//       values [S + 1, P] before each step and after the last, gradients [S, P], losses [S, 2] (language
//       model, load balancing or NaN), phases [S] (0: experts, 1: routers), tokens and targets [S, B, T]; in
//       the metadata each parameter's "offset rows columns" in the block
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <limits>

#include "comigs/base/error.hpp"
#include "comigs/base/random.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/federation/local_work.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/io/safetensors.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/local_trainer.hpp"

namespace {

using namespace comigs;
using Arguments = std::vector<std::string>;
using Metadata = io::SafetensorsFile::Metadata;

// Names and contiguous tensors of float32 or int64, to be written as one file.
using Outputs = std::map<std::string, at::Tensor>;

void write(const std::string& file, const Outputs& outputs, const Metadata& metadata) {
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, tensor] : outputs) {
    const io::Dtype dtype = tensor.scalar_type() == at::kFloat ? io::Dtype::float32 : io::Dtype::int64;
    const std::span bytes(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes());
    tensors.push_back({name, {.dtype = dtype, .shape = tensor.sizes().vec(), .bytes = bytes}});
  }
  io::write_safetensors(file, tensors, metadata);
}

at::ScalarType scalar_type(config::Precision precision) {
  return precision == config::Precision::bf16 ? at::kBFloat16 : at::kFloat;
}

void write_logits(const Arguments& arguments) {
  const auto precision = arguments.at(3) == "bf16" ? config::Precision::bf16 : config::Precision::float32;
  const io::SafetensorsFile file(arguments.at(1));
  const io::TensorView& view = file.at("tokens");
  void* data = const_cast<std::byte*>(view.data());  // LibTorch has no tensors of const
  const at::Tensor tokens = at::from_blob(data, view.shape, at::kLong).clone();
  const auto base = model::load_base_model(arguments.at(0), scalar_type(precision), at::kCPU);
  const model::Parameters none(base->architecture(), {.experts = 0, .gate = model::Gate::none}, at::kCPU);
  const at::NoGradGuard no_gradients;
  const at::Tensor hidden = base->forward(tokens, none).hidden;
  write(arguments.at(2), {{"logits", hidden.mm(base->head().t()).to(at::kFloat).contiguous()}}, {});
}

// One user of a job, as `comigs train` would have it.
struct Job {
  config::Config config;
  model::UserModel user_model;
  train::Texts texts;
  std::unique_ptr<model::BaseModel> base;
  train::LocalPlan plan;
};

Job read_job(std::int64_t users, std::size_t user, const Arguments& options) {
  config::Config config = config::resolve(config::parse(options), users);
  const federation::Method& method = federation::find_method(config.method.name);
  federation::check_method(method, config);
  const data::Manifest manifest = data::read_manifest(config.data.folder);
  return {.config = config,
          .user_model = federation::user_models(method, config.users).at(user),
          .texts = federation::texts(method, config, manifest, user,
                                     federation::open_user(config, manifest, user)),
          .base = model::load_base_model(config.model.folder, scalar_type(config.run.precision), at::kCPU),
          .plan = federation::local_plan(method, config, user)};
}

// Where each parameter lies, read off the tensors that the model uses.
Metadata layout(const model::Architecture& architecture, const model::Parameters& parameters) {
  Metadata places;
  const auto add = [&](const std::string& name, const at::Tensor& leaf) {
    if (leaf.defined())
      places[name] = fmt::format("{} {} {}", leaf.storage_offset(), leaf.size(0), leaf.size(1));
  };
  const auto add_lora = [&](const std::string& name, const model::Lora& lora) {
    add(name + ".A", lora.A);
    add(name + ".B", lora.B);
  };
  for (std::size_t l = 0; l < parameters.layers().size(); ++l) {
    const model::LayerParameters& layer = parameters.layers()[l];
    for (std::size_t site = 0; site < layer.attention.size(); ++site)
      add_lora(fmt::format("{}.{}", l, architecture.attention[site].name), layer.attention[site]);
    for (std::size_t e = 0; e < layer.experts.size(); ++e) {
      add_lora(fmt::format("{}.expert.{}.up", l, e), layer.experts[e].up);
      add_lora(fmt::format("{}.expert.{}.down", l, e), layer.experts[e].down);
    }
    add(fmt::format("{}.router", l), layer.router);
  }
  return places;
}

void perturb(const at::Tensor& values, float deviation) {
  std::vector<float> numbers(static_cast<std::size_t>(values.numel()));
  fill_normal(numbers, deviation, {.seed = 12345});
  values.add_(at::from_blob(numbers.data(), values.sizes(), at::kFloat));
}

float value_or_nan(const at::Tensor& loss) {
  return loss.defined() ? loss.item<float>() : std::numeric_limits<float>::quiet_NaN();
}

at::Tensor numbers(const std::vector<std::int64_t>& values, const data::Batch& batch) {
  return at::tensor(values, at::kLong).view({batch.sequences, batch.context});
}

// Everything that an observer of the trainer sees.
struct Recording {
  std::vector<at::Tensor> values, gradients, losses, tokens, targets;
  std::vector<std::int64_t> phases;

  void add(const model::Parameters& parameters, train::Phase phase, const data::Batch& batch,
           const train::StepLosses& step) {
    values.push_back(parameters.values().clone());
    gradients.push_back(parameters.gradients().clone());
    losses.push_back(at::tensor({value_or_nan(step.language_model), value_or_nan(step.load_balancing)}));
    tokens.push_back(numbers(batch.tokens, batch));
    targets.push_back(numbers(batch.targets, batch));
    phases.push_back(phase == train::Phase::experts ? 0 : 1);
  }
};

void write_steps(const Arguments& arguments) {
  const auto user = static_cast<std::size_t>(std::stoul(arguments.at(2)));
  const Job job =
      read_job(std::stol(arguments.at(1)), user, Arguments(arguments.begin() + 4, arguments.end()));
  model::set_threads(1);
  model::Parameters parameters(job.base->architecture(), job.user_model, at::kCPU);
  parameters.initialise(job.config.run.seed, static_cast<std::int64_t>(user));
  perturb(parameters.values(), std::stof(arguments.at(3)));
  train::LocalTrainer trainer(*job.base, parameters, job.texts, job.plan);
  Recording recording;
  trainer.observe([&](train::Phase phase, const data::Batch& batch, const train::StepLosses& losses) {
    recording.add(parameters, phase, batch, losses);
  });
  for (std::int64_t round = 1; round <= job.config.run.rounds; ++round) trainer.train_round(round);
  recording.values.push_back(parameters.values().clone());
  write(arguments.at(0),
        {{"values", at::stack(recording.values)},
         {"gradients", at::stack(recording.gradients)},
         {"losses", at::stack(recording.losses)},
         {"tokens", at::stack(recording.tokens)},
         {"targets", at::stack(recording.targets)},
         {"phases", at::tensor(recording.phases, at::kLong)}},
        layout(job.base->architecture(), parameters));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const Arguments arguments(argv + std::min(argc, 2), argv + argc);
  try {
    if (what == "logits") {
      write_logits(arguments);
    } else if (what == "steps") {
      write_steps(arguments);
    } else {
      fmt::print(stderr, "error: expected 'logits' or 'steps'\n");
      return 2;
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}
