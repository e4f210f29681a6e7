#include "comigs/train/evaluation.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iterator>
#include <span>

#include "comigs/base/error.hpp"
#include "comigs/data/batch.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "tensors.hpp"

namespace comigs::train {

namespace {

// Sums over tokens of what was routed, on the model's device in float64; one transfer at the end.
class RoutingSums {
 public:
  // mask [n]: 1 where a token counts.
  void add(const std::vector<adapter::LayerRouting>& routing, const at::Tensor& mask) {
    if (routing.empty()) return;
    std::vector<at::Tensor> rows;
    for (const adapter::LayerRouting& layer : routing) {
      const at::Tensor entropy = -at::xlogy(layer.distribution, layer.distribution).sum(-1, true);
      const at::Tensor columns =
          at::cat({layer.gate, layer.chosen.to(at::kFloat), entropy}, 1);  // [n, 2 E + 1]
      rows.push_back((columns * mask.unsqueeze(1)).sum(0, false, at::kDouble));
    }
    const at::Tensor stacked = at::stack(rows);  // [L, 2 E + 1]
    sums_ = sums_.defined() ? sums_.add_(stacked) : stacked;
  }

  [[nodiscard]] RoutingStatistics means(std::int64_t tokens) const {
    RoutingStatistics statistics;
    if (!sums_.defined()) return statistics;
    const at::Tensor means = (sums_ / static_cast<double>(tokens)).to(at::kCPU, at::kFloat);
    const auto rows = means.accessor<float, 2>();
    const std::int64_t experts = (means.size(1) - 1) / 2;
    for (std::int64_t layer = 0; layer < means.size(0); ++layer) {
      for (std::int64_t e = 0; e < experts; ++e) statistics.score.push_back(rows[layer][e]);
      for (std::int64_t e = 0; e < experts; ++e) statistics.load.push_back(rows[layer][experts + e]);
      statistics.entropy.push_back(rows[layer][2 * experts]);
    }
    return statistics;
  }

 private:
  at::Tensor sums_;
};

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

SplitReport evaluate(const model::BaseModel& base, const adapter::Parameters& parameters,
                     const data::TokenShard& shard, const EvaluationOptions& options) {
  const at::NoGradGuard no_gradients;
  const data::TokenShard part = options.tokens > 0 ? shard.leading(options.tokens) : shard;
  const std::int64_t all = data::evaluation_sequences(part, options.context);
  SplitReport report;
  RoutingSums routed;
  at::Tensor loss_sum = at::zeros({}, base.head().options().dtype(at::kDouble));
  for (std::int64_t first = 0; first < all; first += options.sequences) {
    if (options.stop && options.stop()) throw Interrupted();
    const std::int64_t sequences = std::min(options.sequences, all - first);
    data::Batch batch = data::evaluation_batch(part, part.size(), options.context, first, sequences);
    const BatchTensors tensors = to_tensors(batch, base.head().device());
    const adapter::Forward forward = adapter::forward(base, tensors.tokens, parameters);
    loss_sum.add_(model::cross_entropy_sum(forward.hidden, base.head(), tensors.targets));
    routed.add(forward.routing, tensors.targets.ge(0).to(at::kFloat));
    report.evaluation.tokens += batch.predicted;
  }
  report.evaluation.loss_sum = loss_sum.item<double>();
  report.routing = routed.means(report.evaluation.tokens);
  return report;
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
      loss_sum.add_(model::cross_entropy_sum(adapter::forward(base, tensors.tokens, parameters).hidden,
                                             base.head(), tensors.targets));
    }
    tokens += batch.predicted;
  }
  return loss_sum.item<double>() / static_cast<double>(tokens);
}

at::Tensor gates(const model::BaseModel& base, const adapter::Parameters& parameters,
                 const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& begins,
                 std::int64_t context) {
  constexpr std::int64_t tokens_at_once = 4096;
  const at::NoGradGuard no_gradients;
  const adapter::UserModel& user = parameters.user_model();
  const std::int64_t layers = base.architecture().layers;
  // What no router decides is weighted alike.
  const at::Tensor found =
      at::full({std::ssize(ids), layers, user.experts}, 1.0 / static_cast<double>(user.experts), at::kFloat);
  if (!user.routed()) return found;
  const std::vector<Window> windows = cut(std::ssize(ids), begins, context);
  const std::int64_t T = std::ranges::max(windows, {}, &Window::tokens).tokens;
  const auto step = static_cast<std::size_t>(std::max<std::int64_t>(tokens_at_once / T, 1));
  for (std::size_t first = 0; first < windows.size(); first += step) {
    const auto rows = std::span(windows).subspan(first, std::min(step, windows.size() - first));
    const adapter::Forward forward =
        adapter::forward(base, padded(ids, rows, T).to(base.head().device()), parameters);
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const at::Tensor gate = forward.routing[static_cast<std::size_t>(layer)].gate.to(at::kCPU);
      for (std::size_t row = 0; row < rows.size(); ++row)
        found.narrow(0, rows[row].begin, rows[row].tokens)
            .select(1, layer)
            .copy_(gate.narrow(0, static_cast<std::int64_t>(row) * T, rows[row].tokens));
    }
  }
  return found;
}

}  // namespace comigs::train
