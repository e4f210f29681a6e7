// The way through a frozen network with what a user trains.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/adapter/routing.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/key_value_cache.hpp"

namespace comigs::adapter {

class AdapterHooks;

struct Forward {
  at::Tensor hidden;                  ///< [B T, C], after the last norm, in the activations' precision
  std::vector<LayerRouting> routing;  ///< of each layer, or empty where nothing is routed
};

/// A pass with the user's parameters, by the hooks of their kind; see model::forward. `instruction` [B] int64
/// on the model's device: how many leading tokens of each sequence a gate by sequence reads; undefined: all.
[[nodiscard]] Forward forward(const model::BaseModel& base, const at::Tensor& tokens,
                              const Parameters& parameters, const at::Tensor& instruction = {});

/// What a gate by sequence reads, [B, C] float32: no layer from the one on that its prompts enter is run, and
/// nothing that is trained is in it.
[[nodiscard]] at::Tensor sequence_gate_feature(const model::BaseModel& base, const at::Tensor& tokens,
                                               const Parameters& parameters, const at::Tensor& instruction);

/// Its logits [B, E] float32, differentiable in the routers alone.
[[nodiscard]] at::Tensor sequence_gate_logits(const model::BaseModel& base, const at::Tensor& tokens,
                                              const Parameters& parameters, const at::Tensor& instruction);

/// A text that is read on, part by part, without gradients. A gate by sequence reads the first part alone.
class Continuation {
 public:
  /// Keeps references. `most`: tokens of all parts together.
  Continuation(const model::BaseModel& base, const Parameters& parameters, std::int64_t most);
  Continuation(const Continuation&) = delete;
  Continuation& operator=(const Continuation&) = delete;
  ~Continuation();

  /// tokens [1, T], T = 1 but for the first part -> [T, C], as in Forward.
  [[nodiscard]] at::Tensor hidden(const at::Tensor& tokens);

 private:
  const model::BaseModel& base_;
  std::unique_ptr<AdapterHooks> hooks_;
  model::KeyValueCache cache_;
};

/// The parameters as a user begins with them: as `Parameters::initialise`, and what its kind takes from the
/// base. Depends on the arguments alone.
void initialise(Parameters& parameters, const model::BaseModel& base, std::uint64_t seed, std::int64_t user);

}  // namespace comigs::adapter
