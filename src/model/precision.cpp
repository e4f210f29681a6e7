#include "comigs/model/precision.hpp"

namespace comigs::model {

namespace {

CpuProducts this_cpu() {
#ifdef __x86_64__
  return {.tiles = __builtin_cpu_supports("amx-bf16") != 0,
          .vectors = __builtin_cpu_supports("avx512bf16") != 0,
          .expects_tiles = __builtin_cpu_is("intel") != 0 && __builtin_cpu_is("cooperlake") == 0};
#else
  return {};
#endif
}

}  // namespace

bool are_fast_in_bf16(const CpuProducts& cpu) { return cpu.tiles || (cpu.vectors && !cpu.expects_tiles); }

bool is_fast_in_bf16(const at::Device& device) { return !device.is_cpu() || are_fast_in_bf16(this_cpu()); }

at::ScalarType activation_type(at::ScalarType stored, const at::Device& device) {
  return stored == at::kBFloat16 && !is_fast_in_bf16(device) ? at::kFloat : stored;
}

std::string name_of(at::ScalarType activations) {
  return activations == at::kBFloat16 ? "bf16"
         : activations == at::kFloat  ? "float32"
                                      : toString(activations);
}

}  // namespace comigs::model
