// Cross entropy over a chunk of logits: the loss of each token and, in place, the gradient of the logits.
#pragma once

#include <cstdint>

#include "comigs/kernels/bfloat16.hpp"

namespace comigs::kernels {

/// n tokens, vocabulary V; Number is float or Bfloat16. Row-major, each row `stride` >= V numbers behind the
/// one before; what lies between two rows is not touched. Logits are finite.
template <class Number>
struct LogitRows {
  std::int64_t tokens = 0, vocabulary = 0, stride = 0;
  /// [n, V]. With `gradient` overwritten by d sum(losses) / d logits: softmax minus one at the target, zero
  /// in the row of a token without target.
  Number* logits = nullptr;
  const std::int64_t* targets = nullptr;  ///< [n], each below V; negative: no target
  float* losses = nullptr;                ///< [n], in nats; 0 where there is no target
  bool gradient = false;
};

/// The definition, an element at a time in float64.
template <class Number>
void cross_entropy_rows_reference(const LogitRows<Number>& rows);
/// Vectorised, for host memory. Tokens [begin, end), so that threads can each take a part.
template <class Number>
void cross_entropy_rows(const LogitRows<Number>& rows, std::int64_t begin, std::int64_t end);
/// For device memory, queued on `stream` (a cudaStream_t). The same bits at every run. Throws CommError if it
/// cannot be launched or was not built in.
template <class Number>
void cross_entropy_rows_device(const LogitRows<Number>& rows, void* stream);

}  // namespace comigs::kernels
