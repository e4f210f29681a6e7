#include "comigs/adapter/flops.hpp"

#include "comigs/adapter/kind.hpp"

namespace comigs::adapter {

namespace {

double weights_of(const model::Projection& projection) {
  return static_cast<double>(projection.in) * static_cast<double>(projection.out);
}

// Frozen weights of a layer in products: a token's forward pass takes two operations for each.
double of_layer(const model::Architecture& architecture) {
  double layer = weights_of(architecture.down);
  for (const model::Projection& projection : architecture.up) layer += weights_of(projection);
  for (const model::Projection& projection : architecture.attention) layer += weights_of(projection);
  return layer;
}

}  // namespace

double flops(const model::Architecture& architecture, const UserModel& user_model, Pass pass,
             std::int64_t tokens, std::int64_t context) {
  const Load load = user_model.load(architecture);
  // How often each product is made: forward, to activations, to factors.
  const bool backward = pass == Pass::experts || pass == Pass::routers;
  const double activations = backward ? 2.0 : 1.0,
               factors = activations + (pass == Pass::experts ? 1.0 : 0.0),
               router = activations + (pass == Pass::routers ? 1.0 : 0.0), attention = backward ? 3.0 : 1.0;
  const auto L = static_cast<double>(architecture.layers), below = load.first_layer, above = L - below,
             n = static_cast<double>(tokens), P = load.tokens_in_front,
             heads = static_cast<double>(architecture.heads * architecture.head_size),
             T = static_cast<double>(context),
             head = static_cast<double>(architecture.vocabulary) * static_cast<double>(architecture.width);
  // Of a layer, for each token: the frozen products and what it sees of the text, half of it on average. A
  // gate by sequence, which is small, is counted as trained in every step.
  const double products = of_layer(architecture), seen = T * heads, frozen = n * below * (products + seen),
               gate = n / T * (pass == Pass::evaluation ? 1.0 : 3.0) * load.gate;
  if (pass == Pass::warmup) return 2.0 * (frozen + gate);
  return 2.0 * (frozen + gate +
                n * (above * (activations * products + attention * (seen + 2.0 * P * heads)) +
                     activations * head + factors * load.factors + router * load.routers) +
                above * activations * P * products);
}

}  // namespace comigs::adapter
