// What is computed beside bf16 weights is decided once, for all ranks.
#include <boost/test/unit_test.hpp>

#include "comigs/run/frozen_base.hpp"

namespace comigs::run {

using config::Activations;
using config::Precision;

BOOST_AUTO_TEST_SUITE(activations)

BOOST_AUTO_TEST_CASE(a_single_rank_that_is_slow_in_bf16_decides_for_all) {
  const comm::Communicator world = comm::Communicator::world();
  const config::Run run{.precision = Precision::bf16};
  BOOST_TEST((all_settle_activations(world, run, true) == Activations::bf16));
  BOOST_TEST((all_settle_activations(world, run, false) == Activations::float32));
  const bool is_last = world.rank() == world.size() - 1;
  BOOST_TEST((all_settle_activations(world, run, !is_last) == Activations::float32));
}

BOOST_AUTO_TEST_CASE(what_was_said_is_done) {
  const comm::Communicator world = comm::Communicator::world();
  for (const bool is_fast : {false, true})
    for (const Activations said : {Activations::float32, Activations::bf16}) {
      const config::Run run{.precision = Precision::bf16, .activations = said};
      BOOST_TEST((all_settle_activations(world, run, is_fast) == said));
    }
  BOOST_TEST((all_settle_activations(world, {}, true) == Activations::automatic));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::run
