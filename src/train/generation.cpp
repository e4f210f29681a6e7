#include "comigs/train/generation.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "comigs/adapter/forward.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/random.hpp"

namespace comigs::train {

namespace {

constexpr double never = -std::numeric_limits<double>::infinity();  // a logit

// Uniform in [0, 1), of the token at a place.
double drawn(std::uint64_t seed, std::int64_t place) {
  constexpr std::uint64_t steps = std::uint64_t{1} << 53;
  RandomStream stream({.seed = seed,
                       .user = shared_user,  // models that are compared draw alike
                       .stream = Stream::generation,
                       .step = static_cast<std::uint32_t>(place)});
  return static_cast<double>(stream.below(steps)) / static_cast<double>(steps);
}

std::int64_t chosen(const at::Tensor& logits, const Sampling& sampling, std::int64_t place) {
  if (!logits.isfinite().all().item<bool>())
    throw NumericError("the logits of the next token are not finite; are the model's weights whole?");
  if (sampling.temperature == 0.0) return logits.argmax().item<std::int64_t>();
  // The first token up to which there is more probability than was drawn.
  const at::Tensor sums = sampling_probabilities(logits, sampling).cumsum(0);
  const double* first = sums.const_data_ptr<double>();
  const double* last = first + sums.numel() - 1;
  return std::upper_bound(first, last, drawn(sampling.seed, place) * *last) - first;
}

// Logits [V], float32, of what follows the last of the tokens.
at::Tensor next_logits(const model::BaseModel& base, adapter::Continuation& text,
                       std::span<const std::int64_t> tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const at::Tensor input = at::empty({1, count}, at::kLong);
  std::ranges::copy(tokens, input.data_ptr<std::int64_t>());
  const at::Tensor hidden = text.hidden(input.to(base.head().device())).select(0, count - 1);
  return base.head().to(hidden.scalar_type()).mv(hidden).to(at::kFloat);
}

}  // namespace

at::Tensor sampling_probabilities(const at::Tensor& logits, const Sampling& sampling) {
  at::Tensor scaled = logits.to(at::kCPU, at::kDouble);
  scaled = (scaled - scaled.max()) / sampling.temperature;  // finite at the likeliest, however cold
  if (sampling.top_k > 0 && sampling.top_k < scaled.numel()) {
    const at::Tensor least = std::get<0>(scaled.topk(sampling.top_k)).select(0, sampling.top_k - 1);
    scaled.masked_fill_(scaled.lt(least), never);
  }
  if (sampling.top_p < 1.0) {
    const auto [rising, order] = scaled.sort(0, /*descending=*/false);
    const at::Tensor unlikely = rising.softmax(0).cumsum(0).le(1.0 - sampling.top_p);
    unlikely.select(0, unlikely.numel() - 1).fill_(false);
    scaled.masked_fill_(unlikely.new_zeros(unlikely.sizes()).scatter_(0, order, unlikely), never);
  }
  return scaled.softmax(0);
}

std::vector<std::int64_t> generate(const model::BaseModel& base, const adapter::Parameters& parameters,
                                   std::span<const std::int64_t> prompt, const GenerationOptions& options) {
  const at::NoGradGuard no_gradients;
  adapter::Continuation text(base, parameters, static_cast<std::int64_t>(prompt.size()) + options.tokens);
  std::vector<std::int64_t> added;
  std::span<const std::int64_t> next = prompt;
  for (std::int64_t place = 0; place < options.tokens; ++place) {
    const at::Tensor logits = next_logits(base, text, next);
    added.push_back(chosen(logits, options.sampling, place));
    if (std::ranges::find(options.stops, added.back()) != options.stops.end()) break;
    next = std::span(added).last(1);
  }
  return added;
}

}  // namespace comigs::train
