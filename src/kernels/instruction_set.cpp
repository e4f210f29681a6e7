#include "comigs/kernels/instruction_set.hpp"

#include <hwy/targets.h>

namespace comigs::kernels {

// Of the instruction sets that are compiled and that the processor has, the best is the lowest bit.
const char* instruction_set() {
  const auto usable = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(usable & -usable);
}

}  // namespace comigs::kernels
