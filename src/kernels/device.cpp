#include "comigs/kernels/device.hpp"

#include "comigs/base/error.hpp"

namespace comigs::kernels {

void fail_launch(const char* kernel, const char* reason) {
  throw CommError(fmt::format("the device kernel '{}' could not be launched: {}", kernel, reason));
}

}  // namespace comigs::kernels
