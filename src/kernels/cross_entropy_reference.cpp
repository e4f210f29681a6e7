// The definition as it stands in the header.
#include <algorithm>
#include <cmath>

#include "comigs/kernels/cross_entropy.hpp"
#include "number.hpp"

namespace comigs::kernels {

template <class Number>
void cross_entropy_rows_reference(const LogitRows<Number>& rows) {
  const std::int64_t V = rows.vocabulary;
  for (std::int64_t token = 0; token < rows.tokens; ++token) {
    Number* row = rows.logits + token * rows.stride;
    const std::int64_t target = rows.targets[token];
    const auto logit = [&](std::int64_t c) { return static_cast<double>(to_float(row[c])); };
    double normaliser = 0.0;
    if (target >= 0) {
      double largest = logit(0), sum = 0.0;
      for (std::int64_t c = 0; c < V; ++c) largest = std::max(largest, logit(c));
      for (std::int64_t c = 0; c < V; ++c) sum += std::exp(logit(c) - largest);
      normaliser = largest + std::log(sum);
    }
    rows.losses[token] = target < 0 ? 0.0f : static_cast<float>(normaliser - logit(target));
    for (std::int64_t c = 0; c < V && rows.gradient; ++c) {
      const double d = target < 0 ? 0.0 : std::exp(logit(c) - normaliser) - (c == target ? 1.0 : 0.0);
      from_float(static_cast<float>(d), row[c]);
    }
  }
}

template void cross_entropy_rows_reference(const LogitRows<float>&);
template void cross_entropy_rows_reference(const LogitRows<Bfloat16>&);

}  // namespace comigs::kernels
