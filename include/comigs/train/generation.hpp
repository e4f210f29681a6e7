// A text continued token by token, by a model as it was left.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::train {

/// How the next token is chosen: the likeliest one or, where there is a temperature, by chance.
struct Sampling {
  double temperature = 0.0;  ///< logits are divided by it; 0: the likeliest token
  std::int64_t top_k = 0;    ///< only among so many of the likeliest, and what is as likely; 0: all
  double top_p = 1.0;        ///< then among the fewest of the likeliest that have so much probability
  std::uint64_t seed = 0;
};

/// The probabilities [V], float64 in host memory, by which the next token is drawn where there is a
/// temperature; logits [V]. As transformers' TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper
/// (Holtzman et al. 2020), one after the other.
[[nodiscard]] at::Tensor sampling_probabilities(const at::Tensor& logits, const Sampling& sampling);

struct GenerationOptions {
  Sampling sampling;
  std::int64_t tokens = 0;          ///< most that are added
  std::vector<std::int64_t> stops;  ///< tokens that end a text
};

/// Local. The tokens that continue the prompt, which has at least one and leaves room for `tokens` in the
/// model's positions; the last may be one of the stops. What is drawn depends on the seed, the token's place
/// and its probabilities alone. Each token is run once (model::KeyValueCache). Throws NumericError where
/// logits are not finite.
[[nodiscard]] std::vector<std::int64_t> generate(const model::BaseModel& base,
                                                 const adapter::Parameters& parameters,
                                                 std::span<const std::int64_t> prompt,
                                                 const GenerationOptions& options);

}  // namespace comigs::train
