// The way through a network, the same for all families.
#include <ATen/ATen.h>

#include "comigs/base/error.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::model {

at::Tensor forward(const BaseModel& base, const at::Tensor& tokens, Hooks& hooks, KeyValueCache* cache) {
  const Architecture& architecture = base.architecture();
  const Sequences sequences{
      .count = tokens.size(0), .length = tokens.size(1), .first = cache == nullptr ? 0 : cache->length()};
  if (const std::int64_t context = sequences.first + sequences.length; context > architecture.positions)
    throw DataError(fmt::format("a context of {} tokens, but the base model has {} positions", context,
                                architecture.positions));
  at::Tensor x = base.embed(tokens, sequences);
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(architecture.layers); ++layer) {
    const Heads heads = base.split(layer, base.norm_1(layer, x), sequences, hooks);
    const at::Tensor mixed = hooks.attend(layer, cache == nullptr ? heads : cache->append(layer, heads));
    const at::Tensor joined = mixed.transpose(1, 2).reshape({x.size(0), -1});
    x = x + base.rejoin(layer, joined, hooks);
    x = x + hooks.mlp(layer, base.norm_2(layer, x), base.mlp(layer));
  }
  if (cache != nullptr) cache->advance(sequences.length);
  return base.finish(x);
}

}  // namespace comigs::model
