#include "comigs/adapter/flops.hpp"

#include <algorithm>

namespace comigs::adapter {

namespace {

double weights_of(const model::Projection& projection) {
  return static_cast<double>(projection.in) * static_cast<double>(projection.out);
}

double widths_of(const model::Projection& projection) {
  return static_cast<double>(projection.in) + static_cast<double>(projection.out);
}

// Frozen weights in products: a token's forward pass takes two operations for each.
double frozen(const model::Architecture& architecture) {
  double layer = weights_of(architecture.up) + weights_of(architecture.down);
  for (const model::Projection& projection : architecture.attention) layer += weights_of(projection);
  return static_cast<double>(architecture.layers) * layer +
         static_cast<double>(architecture.vocabulary) * static_cast<double>(architecture.width);
}

// LoRA factors that a token is multiplied with.
double low_rank(const model::Architecture& architecture, const UserModel& user_model) {
  if (user_model.gate == Gate::none) return 0.0;
  const auto experts = static_cast<double>(user_model.experts),
             active = user_model.routed()
                          ? static_cast<double>(std::min(user_model.top_k, user_model.experts))
                          : experts;
  double widths = experts * static_cast<double>(architecture.up.in + architecture.down.out) +
                  active * static_cast<double>(architecture.up.out + architecture.down.in);
  for (const model::Projection& projection : architecture.attention) widths += widths_of(projection);
  return static_cast<double>(architecture.layers * user_model.lora_rank) * widths;
}

double routers(const model::Architecture& architecture, const UserModel& user_model) {
  return user_model.routed()
             ? static_cast<double>(architecture.layers * user_model.experts * architecture.width)
             : 0.0;
}

}  // namespace

double flops(const model::Architecture& architecture, const UserModel& user_model, Pass pass,
             std::int64_t tokens, std::int64_t context) {
  // How often each product is made: forward, to activations, to factors.
  const bool backward = pass != Pass::evaluation;
  const double activations = backward ? 2.0 : 1.0, lora = activations + (pass == Pass::experts ? 1.0 : 0.0),
               router = activations + (pass == Pass::routers ? 1.0 : 0.0), attention = backward ? 3.0 : 1.0;
  const double causal = static_cast<double>(architecture.layers * context * architecture.width);
  return 2.0 * static_cast<double>(tokens) *
         (activations * frozen(architecture) + attention * causal +
          lora * low_rank(architecture, user_model) + router * routers(architecture, user_model));
}

}  // namespace comigs::adapter
