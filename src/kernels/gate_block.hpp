// The device's sum of an expert's load: a block an expert.
#pragma once

#include "block.hpp"
#include "comigs/kernels/gate.hpp"

namespace comigs::kernels {

// The block's memory holds a double of every thread.
template <class Block, class Value>
COMIGS_DEVICE void sum_over_tokens(Block& block, const GateShape& shape, std::int64_t expert,
                                   const Value* values, double* to) {
  auto* sums = reinterpret_cast<double*>(block.memory());
  block.phase([&](int thread) {
    double sum = 0.0;
    for (std::int64_t token = thread; token < shape.tokens; token += Block::threads)
      sum += static_cast<double>(values[token * shape.experts + expert]);
    sums[thread] = sum;
  });
  for (int half = Block::threads / 2; half > 0; half /= 2)
    block.phase([&](int thread) {
      if (thread < half) sums[thread] += sums[thread + half];
    });
  block.phase([&](int thread) {
    if (thread == 0) to[expert] = sums[0];
  });
}

template <class Block>
COMIGS_DEVICE void gate_load_expert(Block& block, const GateForward& pass, const GateLoad& load,
                                    std::int64_t expert) {
  sum_over_tokens(block, pass.shape, expert, pass.chosen, load.chosen);
  sum_over_tokens(block, pass.shape, expert, pass.probabilities, load.probabilities);
}

}  // namespace comigs::kernels
