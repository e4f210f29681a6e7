// The way through a network, the same for all families.
#include <ATen/ATen.h>

#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::model {

ResidualStream through_layer(const BaseModel& base, std::size_t layer, ResidualStream stream,
                             const Sequences& sequences, Hooks& hooks, KeyValueCache* cache) {
  const Heads heads = base.split(layer, norm(base.norm_1(layer), stream).x, sequences, hooks);
  const at::Tensor mixed = hooks.attend(layer, cache == nullptr ? heads : cache->append(layer, heads));
  const at::Tensor joined = mixed.transpose(1, 2).reshape({stream.x.size(0), -1});
  stream.waiting = base.rejoin(layer, joined, hooks);
  const Normed normed = norm(base.norm_2(layer), stream, hooks.router(layer));
  stream.waiting = hooks.mlp(layer, normed, base.mlp(layer));
  return stream;
}

namespace {

Sequences in_layer(const at::Tensor& tokens, std::size_t layer, const Hooks& hooks,
                   const KeyValueCache* cache) {
  const std::int64_t first = cache == nullptr ? 0 : cache->length();
  return {.count = tokens.size(0), .length = tokens.size(1), .first = first + hooks.shift(layer)};
}

}  // namespace

ResidualStream stream_into(const BaseModel& base, const at::Tensor& tokens, std::size_t layer, Hooks& hooks,
                           KeyValueCache* cache) {
  ResidualStream x{.x = base.place(base.embed(tokens), in_layer(tokens, 0, hooks, cache)), .waiting = {}};
  for (std::size_t below = 0; below < layer; ++below) {
    const Sequences sequences = in_layer(tokens, below, hooks, cache);
    hooks.enter(below, x, sequences);
    x = through_layer(base, below, std::move(x), sequences, hooks, cache);
  }
  return x;
}

at::Tensor forward(const BaseModel& base, const at::Tensor& tokens, Hooks& hooks, KeyValueCache* cache) {
  const Architecture& architecture = base.architecture();
  const auto layers = static_cast<std::size_t>(architecture.layers);
  if (const std::int64_t context = in_layer(tokens, layers - 1, hooks, cache).first + tokens.size(1);
      context > architecture.positions)
    throw DataError(fmt::format("a context of {} tokens, but the base model has {} positions", context,
                                architecture.positions));
  ResidualStream x = stream_into(base, tokens, layers, hooks, cache);
  if (cache != nullptr) cache->advance(tokens.size(1));
  return norm(base.final_norm(), x).x;
}

}  // namespace comigs::model
