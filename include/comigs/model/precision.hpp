// In which precision is computed, and where.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

namespace comigs::model {

/// What a CPU has for products of bfloat16 numbers.
struct CpuProducts {
  bool tiles = false;    ///< AMX
  bool vectors = false;  ///< AVX512_BF16
  /// Intel's, but for Cooper Lake: where a hypervisor hides the tiles, the vectors are left, with half as
  /// many products a second as float32 has.
  bool expects_tiles = false;
};

/// Whether they are faster than products of float32 numbers.
[[nodiscard]] bool are_fast_in_bf16(const CpuProducts& cpu);

/// Whether products of bfloat16 numbers are faster there than those of float32: on GPUs, and on CPUs that are
/// made for them. By what the processor is, never by a clock: a run must come out the same under any load.
[[nodiscard]] bool is_fast_in_bf16(const c10::Device& device);

/// The precision of activations beside frozen weights that are stored in `stored`, where a single device
/// decides: the same, but float32 on a device that is not fast in bfloat16; the weights stay as they are
/// stored and are widened for one product at a time.
[[nodiscard]] c10::ScalarType activation_type(c10::ScalarType stored, const c10::Device& device);

/// "float32", "bf16": an activation type's name in records and messages.
[[nodiscard]] std::string name_of(c10::ScalarType activations);

/// How a model is computed: the precision of frozen weights, that of what is computed beside them, and
/// whether a GPU does it.
struct Computation {
  c10::ScalarType stored = c10::ScalarType::Float, computed = c10::ScalarType::Float;
  bool on_gpu = false;
};

}  // namespace comigs::model
