#include "comigs/train/evaluation.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/kind.hpp"
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

// Of a batch, by category, float64 [category, n]: losses, predicted tokens, examples; with a gate by sequence
// also how often it has the category's own group in front, its entropy and its weights. losses [B T].
at::Tensor category_sums(const data::Batch& batch, const BatchTensors& tensors, const at::Tensor& losses,
                         const std::optional<adapter::LayerRouting>& gate, std::int64_t categories) {
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
  // A product, whose sums have one order on every device.
  return at::one_hot(tensors.category, categories).to(at::kDouble).t().mm(at::stack(columns, 1));
}

// What is summed of a batch: losses, predicted tokens, sequences, what was routed, what is by category.
struct Columns {
  std::int64_t experts, categories;
  bool by_sequence;
  std::vector<bool> routed;  // by layer; empty: nowhere

  Columns(const model::BaseModel& base, const adapter::Parameters& parameters, std::int64_t of_data)
      : experts(parameters.user_model().experts),
        categories(of_data),
        by_sequence(parameters.user_model().gated_by_sequence()) {
    const adapter::UserModel& user = parameters.user_model();
    if (!user.routed()) return;
    routed.assign(static_cast<std::size_t>(base.architecture().layers), !by_sequence);
    if (by_sequence) routed[static_cast<std::size_t>(user.load(base.architecture()).first_layer)] = true;
  }

  static constexpr std::int64_t losses = 0, tokens = 1, sequences = 2, routing = 3;
  [[nodiscard]] std::int64_t of_layer() const { return 2 * experts + 1; }
  [[nodiscard]] std::int64_t of_category() const { return by_sequence ? 5 + experts : 3; }
  [[nodiscard]] std::int64_t category() const {
    return routing + std::ranges::count(routed, true) * of_layer();
  }
  [[nodiscard]] std::int64_t count() const { return category() + categories * of_category(); }
};

// Means over `count` tokens or sequences.
RoutingStatistics routing_statistics(const Columns& columns, std::span<const double> sums, double count) {
  RoutingStatistics statistics;
  const auto experts = static_cast<std::size_t>(columns.experts);
  const std::vector<float> nothing(2 * experts + 1, std::numeric_limits<float>::quiet_NaN());
  std::span<const double> rest = sums.subspan(Columns::routing);
  for (const bool routed : columns.routed) {
    std::vector<float> means = nothing;
    if (routed) {
      for (std::size_t i = 0; i < means.size(); ++i) means[i] = static_cast<float>(rest[i] / count);
      rest = rest.subspan(means.size());
    }
    const auto load = means.begin() + columns.experts;
    statistics.score.insert(statistics.score.end(), means.begin(), load);
    statistics.load.insert(statistics.load.end(), load, means.end() - 1);
    statistics.entropy.push_back(means.back());
  }
  return statistics;
}

CategoryReport category_report(const Columns& columns, std::span<const double> sums) {
  CategoryReport report;
  double right = 0.0, examples = 0.0;
  const auto width = static_cast<std::size_t>(columns.of_category());
  for (std::span<const double> rest = sums.subspan(static_cast<std::size_t>(columns.category()));
       !rest.empty(); rest = rest.subspan(width)) {
    const std::span<const double> row = rest.first(width);
    report.evaluation.push_back({.loss_sum = row[0], .tokens = static_cast<std::int64_t>(row[1])});
    if (!columns.by_sequence) continue;
    right += row[3];
    examples += row[2];
    report.gate_entropy.push_back(static_cast<float>(row[4] / row[2]));
    for (const double weight : row.subspan(5)) report.gate.push_back(static_cast<float>(weight / row[2]));
  }
  if (columns.by_sequence && columns.categories > 0) report.gate_accuracy = right / examples;
  return report;
}

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
}

data::TokenShard evaluated_part(const data::TokenShard& shard, const EvaluationOptions& options) {
  return options.tokens > 0 ? shard.leading(options.tokens) : shard;
}

// Of one batch, on the model's device: float64 [n], with zeros for the numbers of its tokens and sequences.
at::Tensor sums_of(const EvaluationPasses::Pass& pass, const data::Batch& batch, std::int64_t categories) {
  const at::Tensor loss = pass.losses.sum(at::kDouble).view({1});
  std::vector<at::Tensor> sums{loss, at::zeros({Columns::routing - Columns::tokens}, loss.options())};
  if (pass.routed.defined()) sums.push_back(pass.routed.flatten());
  if (categories > 0)
    sums.push_back(category_sums(batch, pass.inputs, pass.losses, pass.gate, categories).flatten());
  return at::cat(sums);
}

}  // namespace

std::vector<double> batch_sums(const model::BaseModel& base, const adapter::Parameters& parameters,
                               const data::TokenShard& shard, const EvaluationOptions& options,
                               data::Share share) {
  const at::NoGradGuard no_gradients;
  const at::Device device = base.head().device();
  model::RecordingMemory nothing_recorded(at::kCPU);
  // Batches of examples are as long as their longest one: too many sizes to keep.
  const bool kept = options.passes != nullptr && !shard.has_examples();
  const data::EvaluationBatches batches(evaluated_part(shard, options), options.context, options.sequences);
  const bool alone = share.of == 1;
  const std::int64_t rows = alone ? 1 : (batches.size() + share.of - 1) / share.of,
                     columns = Columns(base, parameters, options.categories).count();
  const at::Tensor sums = at::zeros({rows, columns}, base.head().options().dtype(at::kDouble));
  std::vector<std::pair<std::int64_t, std::int64_t>> counted(static_cast<std::size_t>(rows));  // by row
  for (std::int64_t index = share.index; index < batches.size(); index += share.of) {
    if (options.stop && options.stop()) throw Interrupted();
    data::Batch batch = batches.batch(index);
    const auto once = kept ? nullptr : new_pass(nothing_recorded, batch.sequences, batch.context, device);
    EvaluationPasses::Pass& pass = kept ? options.passes->of(batch.sequences, batch.context, device) : *once;
    fill(pass.inputs, batch);
    pass.recording.run([&] { pass_forward(base, parameters, pass); });
    const std::int64_t row = alone ? 0 : index / share.of;
    sums[row].add_(sums_of(pass, batch, options.categories));
    auto& [tokens, sequences] = counted[static_cast<std::size_t>(row)];
    tokens += batch.predicted;
    sequences += batch.sequences;
  }
  const at::Tensor found = sums.to(at::kCPU).contiguous();
  std::vector<double> host(found.const_data_ptr<double>(), found.const_data_ptr<double>() + found.numel());
  for (std::size_t row = 0; row < counted.size(); ++row) {
    double* const of_row = &host[row * static_cast<std::size_t>(columns)];
    of_row[Columns::tokens] = static_cast<double>(counted[row].first);
    of_row[Columns::sequences] = static_cast<double>(counted[row].second);
  }
  return host;
}

SplitReport report(const model::BaseModel& base, const adapter::Parameters& parameters,
                   std::int64_t categories, std::span<const double> sums, std::int64_t processes) {
  const Columns columns(base, parameters, categories);
  const auto width = static_cast<std::size_t>(columns.count()), of = static_cast<std::size_t>(processes),
             rows = sums.size() / width / of;
  std::vector<double> total(width, 0.0);
  // In the order of batches, whoever ran them.
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t process = 0; process < of; ++process)
      std::ranges::transform(total, sums.subspan((process * rows + row) * width, width), total.begin(),
                             std::plus());
  SplitReport report;
  report.evaluation = {.loss_sum = total[Columns::losses],
                       .tokens = static_cast<std::int64_t>(total[Columns::tokens])};
  report.routing =
      routing_statistics(columns, total, total[columns.by_sequence ? Columns::sequences : Columns::tokens]);
  report.by_category = category_report(columns, total);
  return report;
}

SplitReport evaluate(const model::BaseModel& base, const adapter::Parameters& parameters,
                     const data::TokenShard& shard, const EvaluationOptions& options) {
  return report(base, parameters, options.categories, batch_sums(base, parameters, shard, options, {}), 1);
}

std::string evaluation_key(const data::TokenShard& shard, const EvaluationOptions& options) {
  const std::string text = evaluated_part(shard, options).identity();
  return text.empty() ? text
                      : fmt::format("{}, {} of {}, {} categories", text, options.sequences, options.context,
                                    options.categories);
}

at::Tensor gate_features(const model::BaseModel& base, const adapter::Parameters& parameters,
                         std::span<const data::TokenShard> texts, const EvaluationOptions& options) {
  const at::NoGradGuard no_gradients;
  std::int64_t all = 0;
  for (const data::TokenShard& text : texts) all += std::ssize(text.examples());
  at::Tensor features = at::empty({all, base.architecture().width});
  std::int64_t begin = 0;  // of the text's examples
  for (const data::TokenShard& text : texts) {
    const data::EvaluationBatches batches(text, options.context, options.sequences);
    for (std::int64_t index = 0; index < batches.size(); ++index) {
      if (options.stop && options.stop()) throw Interrupted();
      data::Batch batch = batches.batch(index);
      const BatchTensors tensors = to_tensors(batch, base.head().device());
      const at::Tensor found =
          adapter::sequence_gate_feature(base, tensors.tokens, parameters, tensors.instruction);
      features.index_copy_(0, at::tensor(batch.example) + begin, found.to(at::kCPU, at::kFloat));
    }
    begin += batches.sequences();
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
