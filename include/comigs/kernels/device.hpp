// How a kernel that cannot be launched says so. Apart from the launchers because nvcc does not read the error
// headers.
#pragma once

namespace comigs::kernels {

/// Throws CommError naming the kernel and the reason.
[[noreturn]] void fail_launch(const char* kernel, const char* reason);

}  // namespace comigs::kernels
