#include "comigs/kernels/adamw.hpp"
#include "comigs/kernels/device.hpp"

namespace comigs::kernels {

void adamw_device(const AdamwSlice&, const AdamwStep&, void*) {
  fail_launch("adamw", "comigs was built without CUDA");
}

}  // namespace comigs::kernels
