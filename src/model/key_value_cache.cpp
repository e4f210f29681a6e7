#include "comigs/model/key_value_cache.hpp"

#include <ATen/ATen.h>

#include <stdexcept>

namespace comigs::model {

Heads KeyValueCache::append(std::size_t layer, const Heads& heads) {
  const std::int64_t tokens = heads.keys.size(2);
  if (length_ + tokens > capacity_) throw std::length_error("more tokens than the key/value cache holds");
  if (layer == layers_.size()) {
    const std::vector<std::int64_t> sizes{heads.keys.size(0), heads.keys.size(1), capacity_,
                                          heads.keys.size(3)};
    layers_.push_back(
        {.keys = at::empty(sizes, heads.keys.options()), .values = at::empty(sizes, heads.values.options())});
  }
  const auto grown = [&](const at::Tensor& all, const at::Tensor& next) {
    all.narrow(2, length_, tokens).copy_(next);
    return all.narrow(2, 0, length_ + tokens);
  };
  return {.queries = heads.queries,
          .keys = grown(layers_.at(layer).keys, heads.keys),
          .values = grown(layers_.at(layer).values, heads.values)};
}

}  // namespace comigs::model
