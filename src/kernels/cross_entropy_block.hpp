// The device's cross entropy: a block a row. Two passes, the second of which finds most of the row in the
// second-level cache.
#pragma once

#include <cfloat>
#include <cstdint>

#include "block.hpp"
#include "comigs/kernels/cross_entropy.hpp"

namespace comigs::kernels {

// The thread's share of a row: visit(column, values) with a Pack<float, ...> of neighbours from a column on,
// which is written back if the row is rewritten. Rows of an odd vocabulary begin anywhere: packs of 16 bytes
// where they are aligned, single elements around.
template <bool rewrite, class Number, class Visit>
COMIGS_DEVICE void over_row(Number* row, int columns, int thread, int threads, const Visit& visit) {
  constexpr int together = 16 / sizeof(Number);
  const auto single = [&](int c) {
    Pack<float, 1> value{{to_float(row[c])}};
    visit(c, value);
    if (rewrite) from_float(value.at[0], row[c]);
  };
  const auto misaligned = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) / sizeof(Number) % together);
  const int until_aligned = (together - misaligned) % together;
  const int before = until_aligned < columns ? until_aligned : columns;
  const int packs = (columns - before) / together, after = before + packs * together;
  if (thread < before) single(thread);
  // What is only read leaves registers for two packs under way.
  COMIGS_UNROLL_BY((rewrite ? 1 : 2))
  for (int p = thread; p < packs; p += threads) {
    auto* place = reinterpret_cast<Pack<Number, together>*>(row + before) + p;
    Pack<Number, together> pack = *place;
    Pack<float, together> values;
    for (int i = 0; i < together; ++i) values.at[i] = to_float(pack.at[i]);
    visit(before + p * together, values);
    for (int i = 0; i < together; ++i) from_float(values.at[i], pack.at[i]);
    if (rewrite) *place = pack;
  }
  if (after + thread < columns) single(after + thread);
}

// Adds a pack to a thread's maximum so far and its sum of exponentials relative to it.
template <class Values>
COMIGS_DEVICE void add_exponentials(const Values& values, float& largest, float& sum) {
  float larger = largest, added = 0.0f;
  for (const float x : values.at) larger = x > larger ? x : larger;
  for (const float x : values.at) added += exponential(x - larger);
  sum = sum * exponential(largest - larger) + added;
  largest = larger;
}

template <class Block, class Number>
COMIGS_DEVICE void cross_entropy_row(Block& block, const LogitRows<Number>& rows, std::int64_t token) {
  const auto target = static_cast<int>(rows.targets[token]), columns = static_cast<int>(rows.vocabulary);
  Number* row = rows.logits + token * rows.stride;
  if (target < 0) {
    block.each([&](int thread) {
      if (thread == 0) rows.losses[token] = 0.0f;
      if (rows.gradient)
        over_row<true>(row, columns, thread, Block::threads, [](int, auto& values) { values = {}; });
    });
    return;
  }
  typename Block::template Local<float> largest, sum, shift;
  block.each([&](int thread) {
    float own_largest = -FLT_MAX, own_sum = 0.0f;
    over_row<false>(row, columns, thread, Block::threads,
                    [&](int, const auto& values) { add_exponentials(values, own_largest, own_sum); });
    largest[thread] = shift[thread] = own_largest;
    sum[thread] = own_sum;
  });
  combine(block, shift, [](float a, float b) { return a > b ? a : b; });
  block.each([&](int thread) { sum[thread] *= exponential(largest[thread] - shift[thread]); });
  // The target's logit is read before anyone rewrites the row: the sum below ends with all threads in step.
  block.each([&](int thread) {
    if (thread == 0) largest[thread] = to_float(row[target]);
  });
  combine(block, sum, [](float a, float b) { return a + b; });
  block.each([&](int thread) {
    if (thread == 0) rows.losses[token] = logf(sum[thread]) + (shift[thread] - largest[thread]);
    if (!rows.gradient) return;
    const float share = 1.0f / sum[thread], by = shift[thread];
    over_row<true>(row, columns, thread, Block::threads, [&](int c, auto& values) {
      for (float& x : values.at) x = exponential(x - by) * share - (c++ == target ? 1.0f : 0.0f);
    });
  });
}

}  // namespace comigs::kernels
