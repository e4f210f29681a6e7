#include "comigs/model/precision.hpp"

namespace comigs::model {

namespace {

// Of products of bfloat16 numbers, which some processors have for vectors, some for tiles.
bool cpu_has_bf16_products() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx512bf16") != 0 || __builtin_cpu_supports("amx-bf16") != 0;
#else
  return false;
#endif
}

}  // namespace

bool is_fast_in_bf16(const at::Device& device) { return !device.is_cpu() || cpu_has_bf16_products(); }

at::ScalarType activation_type(at::ScalarType stored, const at::Device& device) {
  return stored == at::kBFloat16 && !is_fast_in_bf16(device) ? at::kFloat : stored;
}

std::string name_of(at::ScalarType activations) {
  return activations == at::kBFloat16 ? "bf16"
         : activations == at::kFloat  ? "float32"
                                      : toString(activations);
}

}  // namespace comigs::model
