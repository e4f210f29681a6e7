// What must be the same for the ranks of a run, and for a run and its resumption; and what may change its
// last bits only.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/results/results_file.hpp"

namespace comigs::run {

/// "comigs 0.1.0 (0fe2dbc)".
[[nodiscard]] std::string this_build();

/// The configuration that a run recorded. Throws ConfigError where it cannot be; `origin` stands for the run
/// in messages.
[[nodiscard]] config::Config configuration(const results::RunIdentity& identity, const std::string& origin);

/// Names, and what this rank has of each.
using Facts = std::vector<std::pair<std::string, std::string>>;

/// Collective. Programs and files are each node's own: throws PeerError on every rank where a rank has any
/// fact otherwise than rank 0.
void all_insist_alike(const comm::Communicator& world, const Facts& own);
/// Collective. The same for builds, and then for what ranks of a run must have alike.
void all_insist_on_one_run(const comm::Communicator& world, const results::RunIdentity& own);

/// In what a run differs from another one, or a rank's from another's, that should not, in words; empty: in
/// nothing. Throws ConfigError, DataError where what is known of the other one cannot be read; `origin`
/// stands for it in messages.
[[nodiscard]] std::vector<std::string> differences(const results::RunIdentity& there,
                                                   const results::RunIdentity& here,
                                                   const std::string& origin,
                                                   config::Between between = config::Between::runs);
/// The same for two architectures of base models, as RunIdentity has them.
[[nodiscard]] std::vector<std::string> architecture_differences(const std::string& there,
                                                                const std::string& here,
                                                                const std::string& origin);
/// Which folders lie elsewhere now: "data/text, before old/data/text".
[[nodiscard]] std::vector<std::string> moves(const results::RunIdentity& there,
                                             const results::RunIdentity& here, const std::string& origin);

/// What computes a run, for its history: the build, the libraries, and on what which users are. `on` [user].
[[nodiscard]] std::vector<std::string> computed_by(const std::vector<std::string>& libraries,
                                                   const std::vector<std::string>& on);
/// What stands in one list only, joined; "nothing else" where that is none.
[[nodiscard]] std::string only_in(const std::vector<std::string>& list,
                                  const std::vector<std::string>& other);

}  // namespace comigs::run
