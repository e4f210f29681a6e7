// LoRA experts as an adapter: a LoRA beside every projection of attention, a mixture of LoRA experts around
// every MLP block.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comigs/adapter/experts.hpp"
#include "comigs/adapter/parameters.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

/// For one pass through the network; keeps a reference to the parameters, in which it is differentiable where
/// they are tracked.
class LoraHooks : public model::Hooks {
 public:
  explicit LoraHooks(const Parameters& parameters) : parameters_(parameters) {}

  [[nodiscard]] at::Tensor project(std::size_t layer, std::size_t site, const at::Tensor& x,
                                   const model::Weight& weight) override;
  [[nodiscard]] at::Tensor mlp(std::size_t layer, const at::Tensor& x, const model::FrozenMlp& mlp) override;

  /// One for each layer that the pass has gone through, or empty where nothing is routed.
  [[nodiscard]] const std::vector<LayerRouting>& routing() const noexcept { return routing_; }

 private:
  const Parameters& parameters_;
  std::vector<LayerRouting> routing_;
};

struct Forward {
  at::Tensor hidden;                  ///< [B T, C], after the last norm, in the activations' precision
  std::vector<LayerRouting> routing;  ///< one for each layer, or empty where nothing is routed
};

/// A pass with the user's parameters; see model::forward.
[[nodiscard]] Forward forward(const model::BaseModel& base, const at::Tensor& tokens,
                              const Parameters& parameters);

}  // namespace comigs::adapter
