// Aggregation rules as the table of methods sees them: what each does, what it asks of users and what it
// costs. A rule is one file, its row there and its name here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "comigs/adapter/layout.hpp"
#include "comigs/config/config.hpp"

namespace comigs::federation {

class Aggregation;
struct AggregationSetup;
struct Rule;

/// Of whom a rule's cost is reckoned; references must live as long.
struct RuleUser {
  const config::Config& config;
  const std::vector<adapter::UserModel>& users;
  std::size_t user;
  const adapter::Layout& layout;  ///< the user's
};

/// What a rule takes of a user beside its training.
struct RuleCost {
  /// What some rounds take more.
  struct Extra {
    std::function<bool(std::int64_t round)>
        in_round;              ///< whether one (from 1) is such a round; empty: none is
    std::int64_t bytes = 0;    ///< payload sent
    std::int64_t batches = 0;  ///< of the user's, each run through a model, one by one
  };
  std::int64_t bytes = 0;       ///< payload sent in every round
  std::int64_t kept_bytes = 0;  ///< between rounds, beside the parameters
  bool gathers = false;         ///< every rank has all users' parameters at a time
  Extra extra = {};

  /// Payload sent in `round` (from 1).
  [[nodiscard]] std::int64_t bytes_in(std::int64_t round) const {
    return bytes + (extra.in_round && extra.in_round(round) ? extra.bytes : 0);
  }
};

/// Options of [method] that one rule alone reads.
struct RuleOptions {
  /// Names and values of those that ask something of the rule; empty where all go by their defaults.
  std::string (*text)(const config::Method& options);
  const char* lacking;  ///< what methods by other rules do
  /// Why they do nothing for a user where the rule is `rule`; empty: they do something.
  std::string_view (*idle)(const Rule& rule, const config::Method& options, const config::User& user);
};

struct Rule {
  const char* averaged;  ///< in a word, for the table of methods
  /// Collective over the set-up's world, as the rule's calls are.
  std::unique_ptr<Aggregation> (*all_make)(const AggregationSetup& setup);
  RuleCost (*cost)(const RuleUser& of);
  const RuleOptions* options = nullptr;  ///< null: it has none

  bool every_step = false;      ///< of gradients, at every step: one model on the union of all data
  bool one_shape = false;       ///< all users' parameters have one shape
  bool any_rank = false;        ///< LoRA ranks may differ between users, who have one expert each
  bool own_weights = false;     ///< weighs users itself
  bool in_users_order = false;  ///< adds up so, whatever is asked for
  bool by_slices = false;       ///< of each slice among those who hold it, whoever that is
  bool sums_alone = false;      ///< sends nothing but sums and the like, which bf16 can hold
};

namespace rules {
/// Averaged once a round over its holders (McMahan et al. 2017).
extern const Rule mean;
/// The same, and after the last round each user's own and the averaged LoRA fused (Qi et al. 2024).
extern const Rule fusion;
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
