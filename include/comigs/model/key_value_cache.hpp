// What attention needs of tokens that have been run: their keys and values, so that the next token is run
// alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comigs/model/hooks.hpp"

namespace comigs::model {

/// For sequences of one length. Its memory is taken once, by the first tokens of each layer, on their device
/// and in their precision: 2 L B key/value heads x capacity x head size.
class KeyValueCache {
 public:
  /// `capacity`: most tokens of a sequence.
  explicit KeyValueCache(std::int64_t capacity) : capacity_(capacity) {}

  /// Tokens of each sequence that have gone through all layers.
  [[nodiscard]] std::int64_t length() const noexcept { return length_; }
  /// Takes what the next tokens bring to a layer; gives their queries with the keys and values of all tokens
  /// so far, as views. Throws std::length_error beyond the capacity.
  [[nodiscard]] Heads append(std::size_t layer, const Heads& heads);
  /// So many tokens have gone through all layers.
  void advance(std::int64_t tokens) { length_ += tokens; }

 private:
  struct Layer {
    at::Tensor keys, values;  // [B, key/value heads, capacity, head size]
  };

  std::int64_t capacity_, length_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace comigs::model
