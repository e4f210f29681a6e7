// Causal attention of some heads (Vaswani et al. 2017, Eq. 1) in host memory, forward and backward, without
// the matrix of all weights: a block of queries at a time (Dao et al. 2022).
#pragma once

#include <cstdint>

namespace comigs::kernels {

/// B sequences of T queries and S >= T keys; query t sees keys 0 to t + S - T. Each of the K heads of keys
/// and values serves H / K heads of queries, one behind the other.
struct AttentionShape {
  std::int64_t sequences = 0, heads = 0, key_value_heads = 0;  ///< B, H, K
  std::int64_t tokens = 0, keys = 0, head_size = 0;            ///< T, S, d
  float scale = 1.0f;                                          ///< of a query's product with a key

  [[nodiscard]] std::int64_t group() const { return heads / key_value_heads; }
};

/// Rows of d numbers, each in one piece: that of (sequence, head, token) at the sum of these times the
/// strides.
template <class Number>
struct HeadRows {
  Number* numbers = nullptr;
  std::int64_t sequence = 0, head = 0, token = 0;  ///< strides, in numbers
};

/// Number is float or Bfloat16; arithmetic and everything in between is float32, rounded once at the end.
template <class Number>
struct AttentionForward {
  AttentionShape shape;
  HeadRows<const Number> queries, keys, values;
  HeadRows<Number> mixed;
  float* log_sum = nullptr;  ///< [B, H, T] log of a query's sum of exponentials; may be null
};

template <class Number>
struct AttentionBackward {
  AttentionShape shape;
  HeadRows<const Number> queries, keys, values, d_mixed;
  const float* log_sum = nullptr;  ///< of the forward pass
  HeadRows<Number> d_queries, d_keys, d_values;
};

/// Heads of queries [begin, end), counted through all sequences, so that threads can each take some. Throws
/// std::bad_alloc.
template <class Number>
void attention_forward(const AttentionForward<Number>& pass, std::int64_t begin, std::int64_t end);
/// Heads of keys and values [begin, end), counted likewise, with the queries that they serve.
template <class Number>
void attention_backward(const AttentionBackward<Number>& pass, std::int64_t begin, std::int64_t end);

}  // namespace comigs::kernels
