// The instructions that kernels on the CPU use.
#pragma once

namespace comigs::kernels {

/// Highway's name of those that this machine's kernels are compiled for: "AVX2", "AVX3", "NEON", ...
[[nodiscard]] const char* instruction_set();

}  // namespace comigs::kernels
