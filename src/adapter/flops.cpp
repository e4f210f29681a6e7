#include "comigs/adapter/flops.hpp"

#include "comigs/adapter/kind.hpp"

namespace comigs::adapter {

namespace {

double weights_of(const model::Projection& projection) {
  return static_cast<double>(projection.in) * static_cast<double>(projection.out);
}

// Frozen weights in products: a token's forward pass takes two operations for each.
double frozen(const model::Architecture& architecture) {
  double layer = weights_of(architecture.down);
  for (const model::Projection& projection : architecture.up) layer += weights_of(projection);
  for (const model::Projection& projection : architecture.attention) layer += weights_of(projection);
  return static_cast<double>(architecture.layers) * layer +
         static_cast<double>(architecture.vocabulary) * static_cast<double>(architecture.width);
}

}  // namespace

double flops(const model::Architecture& architecture, const UserModel& user_model, Pass pass,
             std::int64_t tokens, std::int64_t context) {
  const Load load = user_model.load(architecture);
  // How often each product is made: forward, to activations, to factors.
  const bool backward = pass != Pass::evaluation;
  const double activations = backward ? 2.0 : 1.0,
               factors = activations + (pass == Pass::experts ? 1.0 : 0.0),
               router = activations + (pass == Pass::routers ? 1.0 : 0.0), attention = backward ? 3.0 : 1.0;
  const double causal =
      static_cast<double>(architecture.layers * context * architecture.heads * architecture.head_size);
  return 2.0 * static_cast<double>(tokens) *
         (activations * frozen(architecture) + attention * causal + factors * load.factors +
          router * load.routers);
}

}  // namespace comigs::adapter
