// What can be trained beside a frozen network: a kind of adapter is a row, which its file makes of functions.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comigs/adapter/layout.hpp"
#include "comigs/adapter/routing.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/hooks.hpp"

namespace comigs::adapter {

class Parameters;

/// For passes through the network between which the parameters do not change; keeps a reference to these, in
/// which it is differentiable where they are tracked.
class AdapterHooks : public model::Hooks {
 public:
  /// Of each layer that the pass has gone through, or empty where nothing is routed.
  [[nodiscard]] const std::vector<LayerRouting>& routing() const noexcept { return routing_; }

 protected:
  std::vector<LayerRouting> routing_;
};

/// What a kind adds to the work of one token and to the memory that it takes, counted in numbers.
struct Load {
  double factors = 0.0;        ///< trained numbers that the token is multiplied with, the routers' aside
  double routers = 0.0;        ///< those of the routers
  double gate = 0.0;           ///< those of a gate that reads a sequence once
  double kept = 0.0;           ///< for the token's backward pass, in all layers
  double kept_in_front = 0.0;  ///< the same of each sequence
  double passing = 0.0;        ///< alive at a time in one layer's backward pass
  double routing = 0.0;        ///< of the token's routing, in all layers of an evaluation
  /// Of one layer's parameters, laid out for its products, for all tokens together; their gradients take the
  /// same.
  double side_by_side = 0;
  double side_by_side_in_float32 = 0;  ///< besides, in any precision
  double first_layer = 0;              ///< below it nothing is kept and nothing goes backward
  /// Prompts, which go from that layer on as tokens do, once a pass, and are seen by every token there.
  double tokens_in_front = 0;
};

struct AdapterKind {
  const char* name;
  const char* idle;  ///< for readers: why the options of another kind have no effect
  /// The options of [user] that it alone reads.
  std::vector<std::string_view> (*options)();
  /// The trainable tensors, in the order of the block; their offsets are the layout's.
  std::vector<Part> (*parts)(const model::Architecture&, const UserModel&);
  /// What an expert of a layer consists of, by the names of its parts.
  std::vector<std::string> (*projections)(const model::Architecture&);
  /// What readers are told of a user's model beside its experts, by the names of options.
  std::vector<std::pair<const char*, std::int64_t>> (*sizes)(const UserModel&);
  Load (*load)(const model::Architecture&, const UserModel&);
  /// `instruction`: as `forward` has it.
  std::unique_ptr<AdapterHooks> (*hooks)(const Parameters&, const model::BaseModel&,
                                         const at::Tensor& instruction);
  double weight_decay;            ///< where nobody asks for another
  bool chosen_by_budget = false;  ///< whether `experts = auto` may choose how many a user has
  /// How parts begin that are not drawn as `Part` has it; null: all are.
  void (*begin)(Parameters&, const model::BaseModel&, std::uint64_t seed, std::uint32_t user) = nullptr;
  /// See `sequence_gate_feature`; null: no gate of the kind is by sequence.
  at::Tensor (*gate_feature)(const Parameters&, const model::BaseModel&, const at::Tensor& tokens,
                             const at::Tensor& instruction) = nullptr;
};

/// Whether the option of [user] is the kind's own.
[[nodiscard]] inline bool reads(const AdapterKind& kind, std::string_view option) {
  return std::ranges::count(kind.options(), option) > 0;
}

namespace kinds {
/// A LoRA beside every projection of attention, a mixture of LoRA experts around every MLP block.
extern const AdapterKind lora;
/// Groups of soft prompts in front of the text, from a middle layer on.
extern const AdapterKind prompts;

inline constexpr const AdapterKind* all[] = {&lora, &prompts};
}  // namespace kinds

}  // namespace comigs::adapter
