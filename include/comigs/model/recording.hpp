// Work that is done over and over on the same tensors: a GPU records it once, and then all of it is one
// launch.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace comigs::model {

/// Owns the GPU memory that recordings allocate from. They are run one after the other, so that each finds
/// free what the others need only while they run. Must outlive them. Owns nothing on the CPU; nor, with a
/// warning, where the allocator has no memory of its own for recordings, and work is then done as it is.
class RecordingMemory {
 public:
  explicit RecordingMemory(const c10::Device& device);
  RecordingMemory(const RecordingMemory&) = delete;
  RecordingMemory& operator=(const RecordingMemory&) = delete;
  ~RecordingMemory();

 private:
  friend class Recording;
  class Pool;
  std::unique_ptr<Pool> pool_;  // null on the CPU, and where nothing can be recorded
};

/// Work on a GPU that allocates, and is set up by the host, only twice: the first call does it as it is, the
/// second records it as a CUDA graph, and every call from then on launches that graph: the same kernels.
/// Where it cannot be recorded, a warning says so, and the work is done as it is from then on. On the CPU
/// each call does the work.
class Recording {
 public:
  explicit Recording(RecordingMemory& memory);
  Recording(Recording&&) noexcept;
  Recording& operator=(Recording&&) = delete;
  ~Recording();

  /// Local. `work` queues the same kernels on the same tensors at every call and waits for none of them. What
  /// it leaves in tensors that it makes holds until any recording of this memory runs; they stay the same
  /// tensors from the second call on.
  void run(const std::function<void()>& work);

 private:
  class Graph;
  std::unique_ptr<Graph> graph_;  // null on the CPU
};

}  // namespace comigs::model
