#include "comigs/model/precision.hpp"

namespace comigs::model {

namespace {

bool has_matrix_units() {
#ifdef __x86_64__
  return __builtin_cpu_supports("amx-bf16") != 0;
#else
  return false;
#endif
}

}  // namespace

at::ScalarType activation_type(at::ScalarType stored, const at::Device& device) {
  const bool widened = device.is_cpu() && stored == at::kBFloat16 && !has_matrix_units();
  return widened ? at::kFloat : stored;
}

std::string name_of(at::ScalarType activations) {
  return activations == at::kBFloat16 ? "bf16"
         : activations == at::kFloat  ? "float32"
                                      : toString(activations);
}

}  // namespace comigs::model
