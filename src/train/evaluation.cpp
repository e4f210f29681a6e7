#include "comigs/train/evaluation.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <span>

#include "comigs/base/error.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "tensors.hpp"

namespace comigs::train {

namespace {

// Of a batch, what was routed [routed layers, 2 E + 1] in float64: sums of gates, of choices and of the
// entropy. mask [n]: 1 where a token counts; by sequence all do.
at::Tensor routing_sums(const std::vector<adapter::LayerRouting>& routing, const at::Tensor& mask) {
  std::vector<at::Tensor> rows;
  for (const adapter::LayerRouting& layer : routing) {
    if (!layer.gate.defined()) continue;
    const at::Tensor entropy = -at::xlogy(layer.distribution, layer.distribution).sum(-1, true);
    const at::Tensor columns =
        at::cat({layer.gate, layer.chosen.to(at::kFloat), entropy}, 1);  // [n, 2 E + 1]
    rows.push_back((columns * mask.unsqueeze(1)).sum(0, false, at::kDouble));
  }
  return rows.empty() ? at::Tensor() : at::stack(rows);
}

// The same of all batches, on the model's device; one transfer at the end.
class RoutingSums {
 public:
  // layers: in which there is routing.
  void add(const at::Tensor& of_batch, const std::vector<bool>& layers) {
    if (!of_batch.defined()) return;
    routed_ = layers;
    sums_ = sums_.defined() ? sums_.add_(of_batch) : of_batch.clone();
  }

  [[nodiscard]] RoutingStatistics means(std::int64_t count) const {
    RoutingStatistics statistics;
    if (!sums_.defined()) return statistics;
    const at::Tensor means = (sums_ / static_cast<double>(count)).to(at::kCPU, at::kFloat);
    const std::int64_t experts = (means.size(1) - 1) / 2;
    const std::vector<float> nothing(static_cast<std::size_t>(means.size(1)),
                                     std::numeric_limits<float>::quiet_NaN());
    const float* row = means.const_data_ptr<float>();
    for (const bool routed : routed_) {
      const float* of_layer = routed ? row : nothing.data();
      statistics.score.insert(statistics.score.end(), of_layer, of_layer + experts);
      statistics.load.insert(statistics.load.end(), of_layer + experts, of_layer + 2 * experts);
      statistics.entropy.push_back(of_layer[2 * experts]);
      if (routed) row += means.size(1);
    }
    return statistics;
  }

 private:
  at::Tensor sums_;
  std::vector<bool> routed_;  // by layer
};

// Sums by category, as above.
class CategorySums {
 public:
  explicit CategorySums(std::int64_t categories) : categories_(categories) {}

  // losses [B T].
  void add(const data::Batch& batch, const BatchTensors& tensors, const at::Tensor& losses,
           const std::optional<adapter::LayerRouting>& gate) {
    if (categories_ == 0) return;
    const auto by_sequence = [&](const at::Tensor& of_tokens) {
      return of_tokens.view({batch.sequences, batch.context}).sum(1, false, at::kDouble);
    };
    std::vector<at::Tensor> columns{by_sequence(losses), by_sequence(tensors.targets.ge(0)),
                                    at::ones({batch.sequences}, losses.options().dtype(at::kDouble))};
    if (gate) {
      const at::Tensor& weights = gate->gate;
      columns.push_back(weights.argmax(-1).eq(tensors.category).to(at::kDouble));
      columns.push_back(-at::xlogy(weights, weights).sum(-1, false, at::kDouble));
      for (const at::Tensor& of_group : weights.to(at::kDouble).unbind(1)) columns.push_back(of_group);
    }
    const at::Tensor rows = at::stack(columns, 1);  // [B, 3 or 5 + E]
    // A product, whose sums have one order on every device.
    const at::Tensor sums = at::one_hot(tensors.category, categories_).to(at::kDouble).t().mm(rows);
    sums_ = sums_.defined() ? sums_.add_(sums) : sums;
  }

  [[nodiscard]] CategoryReport report() const {
    CategoryReport report;
    if (!sums_.defined()) return report;
    const at::Tensor sums = sums_.to(at::kCPU);
    const auto rows = sums.accessor<double, 2>();
    const std::int64_t columns = sums.size(1);
    double right = 0.0, examples = 0.0;
    for (std::int64_t category = 0; category < categories_; ++category) {
      const auto row = rows[category];
      report.evaluation.push_back({.loss_sum = row[0], .tokens = static_cast<std::int64_t>(row[1])});
      if (columns == 3) continue;
      right += row[3];
      examples += row[2];
      report.gate_entropy.push_back(static_cast<float>(row[4] / row[2]));
      for (std::int64_t group = 5; group < columns; ++group)
        report.gate.push_back(static_cast<float>(row[group] / row[2]));
    }
    if (columns > 3) report.gate_accuracy = right / examples;
    return report;
  }

 private:
  std::int64_t categories_;
  at::Tensor sums_;  // [category, sum]
};

// What a gate by sequence decided, in the one layer that has it.
const adapter::LayerRouting* sequence_gate(const adapter::Parameters& parameters,
                                           const adapter::Forward& forward) {
  if (!parameters.user_model().gated_by_sequence()) return nullptr;
  return &*std::ranges::find_if(forward.routing, [](const auto& layer) { return layer.gate.defined(); });
}

struct Window {
  std::int64_t begin = 0, tokens = 0;
};

// Windows of at most T = `context` tokens that make up `count` tokens; none leaves the part that it begins
// in.
std::vector<Window> cut(std::int64_t count, const std::vector<std::int64_t>& begins, std::int64_t context) {
  std::vector<Window> windows;
  for (std::size_t part = 0; part < begins.size(); ++part) {
    const std::int64_t end = part + 1 < begins.size() ? begins[part + 1] : count;
    for (std::int64_t begin = begins[part]; begin < end; begin += context)
      windows.push_back({.begin = begin, .tokens = std::min(context, end - begin)});
  }
  return windows;
}

// The tokens of windows [n, T], each followed by zeros.
at::Tensor padded(const std::vector<std::int64_t>& ids, std::span<const Window> windows, std::int64_t T) {
  const at::Tensor tokens = at::zeros({std::ssize(windows), T}, at::kLong);
  auto* row = tokens.data_ptr<std::int64_t>();
  for (const Window& window : windows) {
    std::copy_n(ids.begin() + window.begin, window.tokens, row);
    row += T;
  }
  return tokens;
}

}  // namespace

struct EvaluationPasses::Pass {
  BatchTensors inputs;
  model::Recording recording;
  at::Tensor losses, routed;                    // [B T], routing_sums
  std::vector<bool> layers = {};                // in which there is routing
  std::optional<adapter::LayerRouting> gate{};  // by sequence
};

EvaluationPasses::EvaluationPasses(model::RecordingMemory& memory) : memory_(memory) {}
EvaluationPasses::~EvaluationPasses() = default;

namespace {

std::unique_ptr<EvaluationPasses::Pass> new_pass(model::RecordingMemory& memory, std::int64_t sequences,
                                                 std::int64_t context, const c10::Device& device) {
  return std::make_unique<EvaluationPasses::Pass>(empty_batch(sequences, context, device),
                                                  model::Recording(memory));
}

}  // namespace

EvaluationPasses::Pass& EvaluationPasses::of(std::int64_t sequences, std::int64_t context,
                                             const c10::Device& device) {
  std::unique_ptr<Pass>& pass = passes_[{sequences, context}];
  if (!pass) pass = new_pass(memory_, sequences, context, device);
  return *pass;
}

namespace {

void pass_forward(const model::BaseModel& base, const adapter::Parameters& parameters,
                  EvaluationPasses::Pass& pass) {
  const adapter::Forward forward =
      adapter::forward(base, pass.inputs.tokens, parameters, pass.inputs.instruction);
  pass.losses = model::cross_entropy_of_tokens(forward.hidden, base.head(), pass.inputs.targets);
  const adapter::LayerRouting* gate = sequence_gate(parameters, forward);
  pass.gate = gate == nullptr ? std::nullopt : std::optional(*gate);
  pass.routed = routing_sums(forward.routing,
                             gate == nullptr ? pass.inputs.targets.ge(0).to(at::kFloat)
                                             : at::ones({pass.inputs.tokens.size(0)}, pass.losses.options()));
  pass.layers.clear();
  for (const adapter::LayerRouting& layer : forward.routing) pass.layers.push_back(layer.gate.defined());
}

}  // namespace

SplitReport evaluate(const model::BaseModel& base, const adapter::Parameters& parameters,
                     const data::TokenShard& shard, const EvaluationOptions& options) {
  const at::NoGradGuard no_gradients;
  const at::Device device = base.head().device();
  model::RecordingMemory nothing_recorded(at::kCPU);
  // Batches of examples are as long as their longest one: too many sizes to keep.
  const bool kept = options.passes != nullptr && !shard.has_examples();
  const data::TokenShard part = options.tokens > 0 ? shard.leading(options.tokens) : shard;
  const std::int64_t all = data::evaluation_sequences(part, options.context);
  SplitReport report;
  RoutingSums routed;
  CategorySums by_category(options.categories);
  at::Tensor loss_sum = at::zeros({}, base.head().options().dtype(at::kDouble));
  for (std::int64_t first = 0; first < all; first += options.sequences) {
    if (options.stop && options.stop()) throw Interrupted();
    const std::int64_t sequences = std::min(options.sequences, all - first);
    data::Batch batch = data::evaluation_batch(part, part.size(), options.context, first, sequences);
    const auto once = kept ? nullptr : new_pass(nothing_recorded, sequences, batch.context, device);
    EvaluationPasses::Pass& pass = kept ? options.passes->of(sequences, batch.context, device) : *once;
    fill(pass.inputs, batch);
    pass.recording.run([&] { pass_forward(base, parameters, pass); });
    loss_sum.add_(pass.losses.sum(at::kDouble));
    routed.add(pass.routed, pass.layers);
    by_category.add(batch, pass.inputs, pass.losses, pass.gate);
    report.evaluation.tokens += batch.predicted;
  }
  report.evaluation.loss_sum = loss_sum.item<double>();
  const bool by_sequence = parameters.user_model().gated_by_sequence();
  report.routing = routed.means(by_sequence ? all : report.evaluation.tokens);
  report.by_category = by_category.report();
  return report;
}

at::Tensor gate_features(const model::BaseModel& base, const adapter::Parameters& parameters,
                         std::span<const data::TokenShard> texts, const EvaluationOptions& options) {
  const at::NoGradGuard no_gradients;
  std::int64_t all = 0;
  for (const data::TokenShard& text : texts) all += std::ssize(text.examples());
  at::Tensor features = at::empty({all, base.architecture().width});
  std::int64_t done = 0;
  for (const data::TokenShard& text : texts) {
    const std::int64_t examples = std::ssize(text.examples());
    for (std::int64_t first = 0; first < examples; first += options.sequences) {
      if (options.stop && options.stop()) throw Interrupted();
      const std::int64_t sequences = std::min(options.sequences, examples - first);
      data::Batch batch = data::evaluation_batch(text, text.size(), options.context, first, sequences);
      const BatchTensors tensors = to_tensors(batch, base.head().device());
      features.narrow(0, done, sequences)
          .copy_(adapter::sequence_gate_feature(base, tensors.tokens, parameters, tensors.instruction));
      done += sequences;
    }
  }
  return features;
}

double sampled_loss(const model::BaseModel& base, const adapter::Parameters& parameters,
                    const data::TokenShard& shard, std::int64_t batches, const config::User& user,
                    StreamKey key) {
  const at::NoGradGuard no_gradients;
  const std::int64_t size = user.sequences_at_a_time();
  at::Tensor loss_sum = at::zeros({}, base.head().options().dtype(at::kDouble));
  std::int64_t tokens = 0;
  for (std::int64_t b = 0; b < batches; ++b) {
    key.step = static_cast<std::uint32_t>(b);
    const data::Batch batch = data::sample_batch({&shard, 1}, user.batch_sequences, user.context_tokens, key);
    for (std::int64_t begin = 0; begin < batch.sequences; begin += size) {
      data::Batch part = data::slice(batch, begin, std::min(size, batch.sequences - begin));
      const BatchTensors tensors = to_tensors(part, base.head().device());
      const at::Tensor hidden =
          adapter::forward(base, tensors.tokens, parameters, tensors.instruction).hidden;
      loss_sum.add_(model::cross_entropy_of_tokens(hidden, base.head(), tensors.targets).sum(at::kDouble));
    }
    tokens += batch.predicted;
  }
  return loss_sum.item<double>() / static_cast<double>(tokens);
}

namespace {

constexpr std::int64_t tokens_at_once = 4096;

// Puts into `found` [n, L, E] what was decided of each token.
void add_gates_of_tokens(const at::Tensor& found, const model::BaseModel& base,
                         const adapter::Parameters& parameters, const std::vector<std::int64_t>& ids,
                         const std::vector<std::int64_t>& begins, std::int64_t context) {
  const std::vector<Window> windows = cut(std::ssize(ids), begins, context);
  const std::int64_t T = std::ranges::max(windows, {}, &Window::tokens).tokens;
  const auto step = static_cast<std::size_t>(std::max<std::int64_t>(tokens_at_once / T, 1));
  for (std::size_t first = 0; first < windows.size(); first += step) {
    const auto rows = std::span(windows).subspan(first, std::min(step, windows.size() - first));
    const adapter::Forward forward =
        adapter::forward(base, padded(ids, rows, T).to(base.head().device()), parameters);
    for (std::int64_t layer = 0; layer < found.size(1); ++layer) {
      const at::Tensor gate = forward.routing[static_cast<std::size_t>(layer)].gate.to(at::kCPU);
      for (std::size_t row = 0; row < rows.size(); ++row)
        found.narrow(0, rows[row].begin, rows[row].tokens)
            .select(1, layer)
            .copy_(gate.narrow(0, static_cast<std::int64_t>(row) * T, rows[row].tokens));
    }
  }
}

// The same of each part, from the layer on that has the gate.
void add_gates_of_parts(const at::Tensor& found, const model::BaseModel& base,
                        const adapter::Parameters& parameters, const std::vector<std::int64_t>& ids,
                        const std::vector<std::int64_t>& begins, const std::vector<std::int64_t>& instruction,
                        std::int64_t context) {
  const std::int64_t layer = parameters.layout().parts().back().layer;
  for (std::size_t part = 0; part < begins.size(); ++part) {
    const std::int64_t end = part + 1 < begins.size() ? begins[part + 1] : std::ssize(ids),
                       length = end - begins[part];
    const Window read{.begin = begins[part],
                      .tokens = std::min(instruction.empty() ? length : instruction[part], context)};
    const at::Tensor tokens = padded(ids, std::span(&read, 1), read.tokens).to(base.head().device());
    const at::Tensor gate =
        adapter::sequence_gate_logits(base, tokens, parameters, {}).softmax(-1).to(at::kCPU);
    found.narrow(0, begins[part], length).slice(1, layer).copy_(gate.unsqueeze(1));
  }
}

}  // namespace

at::Tensor gates(const model::BaseModel& base, const adapter::Parameters& parameters,
                 const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& begins,
                 const std::vector<std::int64_t>& instruction, std::int64_t context) {
  const at::NoGradGuard no_gradients;
  const adapter::UserModel& user = parameters.user_model();
  // What no router decides is weighted alike.
  const at::Tensor found = at::full({std::ssize(ids), base.architecture().layers, user.experts},
                                    1.0 / static_cast<double>(user.experts), at::kFloat);
  if (user.gated_by_sequence()) {
    found.fill_(std::numeric_limits<float>::quiet_NaN());
    add_gates_of_parts(found, base, parameters, ids, begins, instruction, context);
  } else if (user.routed()) {
    add_gates_of_tokens(found, base, parameters, ids, begins, context);
  }
  return found;
}

}  // namespace comigs::train
