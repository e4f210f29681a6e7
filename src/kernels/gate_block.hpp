// The device's mean of an expert's load: a block an expert.
#pragma once

#include "block.hpp"
#include "gate_token.hpp"

namespace comigs::kernels {

// The block's memory holds a double of every thread.
template <class Block, class Value>
COMIGS_DEVICE void mean_over_tokens(Block& block, const GateShape& shape, std::int64_t expert,
                                    const Value* values, float* to) {
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
    if (thread == 0) to[expert] = mean(sums[0], shape);
  });
}

template <class Block>
COMIGS_DEVICE void gate_load_expert(Block& block, const GateForward& pass, const GateLoad& load,
                                    std::int64_t expert) {
  mean_over_tokens(block, pass.shape, expert, pass.chosen, load.chosen);
  mean_over_tokens(block, pass.shape, expert, pass.probabilities, load.probabilities);
}

}  // namespace comigs::kernels
