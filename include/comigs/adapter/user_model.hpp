// What a user's trainable part looks like.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "comigs/model/architecture.hpp"

namespace comigs::adapter {

/// How experts are weighted.
enum class Gate {
  none,      ///< no experts: the base model as it is
  equal,     ///< 1/n for each
  top_k,     ///< of a token: softmax over the k largest logits of the router; k = 1: see LayerRouting::gate
  sequence,  ///< of a sequence: softmax over all, from its instruction
};

/// Both factors of every LoRA, or one of them.
enum class Factors { both, A, B };

struct AdapterKind;
struct Load;
namespace kinds {
extern const AdapterKind lora;
extern const AdapterKind prompts;
}  // namespace kinds

struct UserModel {
  std::int64_t experts = 2;  ///< in every MLP block; 0: nothing is trained
  /// Which of the run's generalists the first experts are, rising; the other experts are the user's own.
  std::vector<std::int64_t> generalists = {0};
  std::int64_t lora_rank = 8;  ///< R
  /// Of the LoRA beside attention, where it has a rank of its own, alike for all users.
  std::optional<std::int64_t> attention_rank = std::nullopt;
  double lora_alpha = 16.0;
  std::int64_t prompt_tokens = 10;  ///< m, of each group; an expert is a group, where prompts are trained
  /// l*, the layer that prompts enter; nothing: a third of the way up.
  std::optional<std::int64_t> prompt_layer = std::nullopt;
  std::int64_t gate_width = 128;  ///< H, of the hidden layer of a gate by sequence
  std::int64_t top_k = 2;
  Gate gate = Gate::top_k;
  bool shared_attention = true;
  bool shared_routers = false;
  Factors trained = Factors::both;  ///< the rest stays as drawn
  Factors shared = Factors::both;   ///< of what is shared; the rest is the user's own
  const AdapterKind* kind = &kinds::lora;

  bool operator==(const UserModel&) const = default;

  /// gamma = alpha / sqrt(R), rank-stabilised (Eq. 5).
  [[nodiscard]] double scale() const;
  /// The rank of its experts; 0: what they train has none.
  [[nodiscard]] std::int64_t rank_of_experts() const { return trains_lora() ? lora_rank : 0; }
  /// That which its experts would have if they had one.
  [[nodiscard]] std::int64_t rank_as_told() const { return lora_rank; }
  /// The rank of the LoRA beside attention, and its gamma.
  [[nodiscard]] std::int64_t rank_of_attention() const { return attention_rank.value_or(lora_rank); }
  [[nodiscard]] double attention_scale() const;
  /// What its kind adds to the work of a token; nothing without experts.
  [[nodiscard]] Load load(const model::Architecture& architecture) const;
  /// Its experts are LoRA, and attention has some too.
  [[nodiscard]] bool trains_lora() const { return experts > 0 && kind == &kinds::lora; }
  /// Its experts are groups of prompts.
  [[nodiscard]] bool trains_prompts() const { return experts > 0 && kind == &kinds::prompts; }
  /// Positions that prompts take in front of a text.
  [[nodiscard]] std::int64_t positions_in_front() const { return trains_prompts() ? prompt_tokens : 0; }
  [[nodiscard]] bool routed() const { return (gate == Gate::top_k || gate == Gate::sequence) && experts > 1; }
  [[nodiscard]] bool gated_by_sequence() const { return gate == Gate::sequence && experts > 1; }
  /// One expert where others have several and a gate: it has all the weight.
  [[nodiscard]] bool needs_no_gate() const {
    return (gate == Gate::top_k || gate == Gate::sequence) && experts == 1;
  }
  /// Not where a token has one expert of several: that one's weight is its probability.
  [[nodiscard]] bool gates_sum_to_one() const { return !routed() || top_k > 1; }
};

}  // namespace comigs::adapter
