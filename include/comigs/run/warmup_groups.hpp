// What the warm-up of a gate by sequence tells apart where that is not the categories of examples.
#pragma once

#include <functional>

#include "comigs/comm/communicator.hpp"
#include "comigs/run/roster.hpp"
#include "comigs/run/seat.hpp"

namespace comigs::run {

/// Collective. With gate_targets = clusters and rounds of the warm-up ahead, gives the seat's trainer the
/// cluster of each of its examples among what its gate reads of them, as many clusters as it has groups: over
/// all users' examples where the gate is shared, else over its own. They are the same whenever, and on
/// however many ranks, they are found. Throws PeerError on every rank where one fails, or `stop`, asked
/// before each batch, says so.
void all_find_warmup_groups(const comm::Communicator& world, const Roster& roster, Seat& seat,
                            const std::function<bool()>& stop);

}  // namespace comigs::run
