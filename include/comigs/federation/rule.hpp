// Aggregation rules as the table of methods sees them: what each does, what it asks of users and what it
// costs. A rule is one file, its row there and its name here.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comigs/adapter/layout.hpp"
#include "comigs/config/config.hpp"

namespace comigs::federation {

class Aggregation;
struct AggregationSetup;

/// Of whom a rule's cost is reckoned; references must live as long.
struct RuleCost {
  const config::Config& config;
  const std::vector<adapter::UserModel>& users;
  std::size_t user;
  const adapter::Layout& layout;  ///< the user's
};

struct Rule {
  const char* averaged;  ///< in a word, for the table of methods
  /// Collective over the set-up's world, as the rule's calls are.
  std::unique_ptr<Aggregation> (*all_make)(const AggregationSetup& setup);
  /// Payload that the user sends in `round` (from 1).
  std::int64_t (*bytes_in_round)(const RuleCost& of, std::int64_t round);
  /// Bytes that it keeps between rounds, beside the parameters; null: none.
  std::int64_t (*kept_bytes)(const RuleCost& of) = nullptr;
  /// Whether every user runs every user's model in `round`, on `batches_judged` batches; null: never.
  bool (*judges)(std::int64_t round) = nullptr;

  bool every_step = false;      ///< of gradients, at every step: one model on the union of all data
  bool one_shape = false;       ///< all users' parameters have one shape
  bool any_rank = false;        ///< LoRA ranks may differ between users, who have one expert each
  bool own_weights = false;     ///< weighs users itself
  bool in_users_order = false;  ///< adds up so, whatever is asked for
  bool sums_alone = false;      ///< sends nothing but sums, which bf16 can hold
  bool prunes_ranks = false;    ///< ranks shrink after local training
  bool gathers = false;         ///< every rank has all users' parameters at a time
};

inline constexpr std::int64_t batches_judged = 20;

namespace rules {
/// Averaged once a round over its holders (McMahan et al. 2017).
extern const Rule mean;
/// Gradients averaged at every step: one model on the union of all data.
extern const Rule gradients;
/// Mixed by user-specific weights from validation losses (Wagner et al. 2024).
extern const Rule collaboration;
/// Factors of different ranks padded with zeros, averaged, truncated (Cho et al. 2023).
extern const Rule padding;
/// Updates averaged and decomposed to each user's rank (Bai et al. 2024).
extern const Rule decomposition;
}  // namespace rules

}  // namespace comigs::federation
