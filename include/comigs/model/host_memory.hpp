// Memory of tensors on the host.
#pragma once

namespace comigs::model {

/// Has the C library keep freed memory, so that a step finds the pages of the step before instead of asking
/// the system for them again, and LibTorch take its memory from `malloc`. Of glibc's aligned allocation,
/// which it takes otherwise, a block that was freed need not serve the next one of its size, and a process
/// whose blocks do not lie as they did a step before grows step by step. Local; before any other use of
/// LibTorch.
void keep_host_memory();

}  // namespace comigs::model
