#include "comigs/train/pretraining.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "comigs/base/error.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "comigs/model/device.hpp"
#include "comigs/train/evaluation.hpp"
#include "comigs/train/schedule.hpp"
#include "tensors.hpp"

namespace comigs::train {

namespace {

using Kind = model::WeightSpec::Kind;

// As in GPT-2's own training code: embeddings and matrices are decayed, biases and norms are not.
bool is_decayed(const model::WeightSpec& spec) { return spec.kind != Kind::bias && spec.kind != Kind::scale; }

}  // namespace

Pretraining::Pretraining(const config::Pretrain& plan, std::int64_t vocabulary, const at::Device& device,
                         data::Share share)
    : plan_(plan),
      share_(share),
      architecture_(
          model::gpt2_architecture(plan.layers, plan.width, plan.heads, vocabulary, plan.context_tokens)),
      specs_(model::weight_specs(architecture_)),
      weights_(specs_.size()) {
  std::int64_t count = 0;
  for (const model::WeightSpec& spec : specs_) count += spec.count();
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  values_ = at::zeros({count}, options);
  gradients_ = at::zeros({count + 1}, options);
  std::int64_t offset = 0;
  for (const bool decayed : {true, false}) {
    const std::int64_t begin = offset;
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      if (is_decayed(specs_[i]) != decayed) continue;
      weights_[i] = values_.narrow(0, offset, specs_[i].count()).view(specs_[i].shape).detach();
      weights_[i].set_requires_grad(true);
      weights_[i].mutable_grad() =
          gradients_.narrow(0, offset, specs_[i].count()).view(specs_[i].shape).detach();
      offset += specs_[i].count();
    }
    (decayed ? decayed_ : undecayed_) = {begin, offset - begin};
  }
  initialise();
  base_ = model::make_base_model(architecture_, in_order());
  no_parameters_ = std::make_unique<adapter::Parameters>(
      architecture_, adapter::UserModel{.experts = 0, .gate = adapter::Gate::none}, device);
  optimiser_ = std::make_unique<Adamw>(values_, gradients_,
                                       AdamwConstants{.beta1 = plan.beta1,
                                                      .beta2 = plan.beta2,
                                                      .epsilon = plan.epsilon,
                                                      .weight_decay = plan.weight_decay});
}

void Pretraining::initialise() {
  // Radford et al. 2019: N(0, 0.02); maps into the residual stream scaled down by the square root of their
  // number.
  const double residual = 0.02 / std::sqrt(2.0 * static_cast<double>(architecture_.layers));
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    at::Tensor weight = weights_[i].detach();
    if (specs_[i].kind == Kind::scale) weight.fill_(1.0);
    if (!is_decayed(specs_[i])) continue;
    std::vector<float> numbers(static_cast<std::size_t>(weight.numel()));
    fill_normal(numbers, static_cast<float>(specs_[i].kind == Kind::residual_matrix ? residual : 0.02),
                {.seed = plan_.seed,
                 .user = shared_user,
                 .stream = Stream::base_init,
                 .round = static_cast<std::uint32_t>(i)});
    weight.copy_(at::from_blob(numbers.data(), weight.sizes(), at::kFloat));
  }
}

double Pretraining::step(std::int64_t step, const data::TokenShard& text, const SumOverRanks& sum) {
  const std::int64_t begin = plan_.batch_sequences * share_.index / share_.of;
  const std::int64_t end = plan_.batch_sequences * (share_.index + 1) / share_.of;
  gradients_.zero_();
  if (end > begin) {
    data::Batch batch = data::sample_batch({&text, 1}, end - begin, plan_.context_tokens,
                                           {.seed = plan_.seed,
                                            .user = shared_user,
                                            .stream = Stream::pretrain_batch,
                                            .round = 0,
                                            .step = static_cast<std::uint32_t>(step)},
                                           begin);
    const BatchTensors tensors = to_tensors(batch, values_.device());
    const at::Tensor share = at::full(
        {}, static_cast<double>(end - begin) / static_cast<double>(plan_.batch_sequences), values_.options());
    const adapter::Forward forward = adapter::forward(*base_, tensors.tokens, *no_parameters_);
    const at::Tensor loss = model::cross_entropy(forward.hidden, base_->head(), tensors.targets, share);
    loss.backward();
    gradients_.narrow(0, values_.numel(), 1).copy_(loss.detach());
  }
  model::synchronize(values_.device());
  sum({gradients_.data_ptr<float>(), static_cast<std::size_t>(gradients_.numel())});
  const double loss = gradients_[values_.numel()].item<double>();
  if (!std::isfinite(loss))
    throw NumericError(
        fmt::format("step {}: the loss is not finite; try a smaller --learning-rate", step + 1));
  const double rate = CosineSchedule{.peak = plan_.learning_rate,
                                     .warmup_fraction = plan_.warmup_fraction,
                                     .final_fraction = plan_.final_fraction,
                                     .steps = plan_.steps}
                          .rate(step);
  optimiser_->step(decayed_, rate, step + 1);
  optimiser_->step(undecayed_, rate, step + 1, 0.0);
  return loss;
}

Evaluation Pretraining::evaluate(const data::TokenShard& text, std::function<bool()> stop) const {
  return train::evaluate(
             *base_, *no_parameters_, text,
             {.context = plan_.context_tokens, .sequences = 32, .tokens = 0, .stop = std::move(stop)})
      .evaluation;
}

std::vector<std::pair<std::string, at::Tensor>> Pretraining::state() const {
  return {{"values", values_},
          {"first_moments", optimiser_->first_moments()},
          {"second_moments", optimiser_->second_moments()}};
}

void Pretraining::write(const std::filesystem::path& folder) const {
  model::write_base_model(folder, architecture_, in_order());
}

model::WeightSource Pretraining::in_order() const {
  return [this, next = std::size_t{0}](const model::WeightSpec&) mutable { return weights_[next++]; };
}

}  // namespace comigs::train
