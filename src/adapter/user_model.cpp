#include "comigs/adapter/user_model.hpp"

#include <cmath>

#include "comigs/adapter/kind.hpp"

namespace comigs::adapter {

double UserModel::scale() const { return lora_alpha / std::sqrt(static_cast<double>(lora_rank)); }

double UserModel::attention_scale() const {
  return lora_alpha / std::sqrt(static_cast<double>(rank_of_attention()));
}

Load UserModel::load(const model::Architecture& architecture) const {
  return gate == Gate::none ? Load{} : kind->load(architecture, *this);
}

}  // namespace comigs::adapter
